import type { GatewayError } from '../../base/errors.js'
import { Heartbeats } from '../../transports/heartbeats.js'
import { MemoizedBuffer } from '../../transports/memoized-buffer.js'
import { namedWords } from '../../transports/sse/control-events.js'
import type { StreamContext, StreamLanguage } from '../../transports/sse/event-stream.js'
import { firstEvent, liveEvent, streamHeaders } from '../../transports/sse/stream-form.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { lastWords, mostAfter } from './forms.js'
import { sequenceOf } from './sequence.js'

/** The feeds that go on. */
export type StreamFeed = 'continuous' | 'eventsource'

/** What is looked for in silence, and after how long, in milliseconds. */
export interface Silence {
  readonly interval: number
  /** Whether the feed ends then, instead of showing that it is alive. */
  readonly ends: boolean
}

/** How a feed that goes on is written. */
interface Form {
  readonly headers: Readonly<Record<string, string>>
  readonly first: string
  readonly language: (options: TransportContext) => StreamLanguage
  /** The bytes that tell the number that a client comes back with. */
  readonly place: (cursor: string | undefined) => string
  readonly heartbeat: string
  /** As `StreamHouse.tellsPlaceInSilence`. */
  readonly tellsPlaceInSilence: boolean
}

const nothing = Buffer.alloc(0)

/** One row a line; empty lines are signs of life. */
const continuous: Form = {
  headers: { ...streamHeaders, 'content-type': 'application/json; charset=utf-8' },
  first: '\n',
  language: ({ push }) => ({
    gap: () => nothing,
    end: (_ending, cursor) => Buffer.from(`{${lastWords(cursor, mostAfter(push.journal, cursor))}\n`),
  }),
  place: () => '\n',
  heartbeat: '\n',
  tellsPlaceInSilence: false,
}

function placeOf(cursor: string | undefined): string {
  const sequence = sequenceOf(cursor) ?? 0
  return liveEvent(String(sequence), { last_seq: sequence })
}

/** One row a message; all else are events with names. The heartbeat is that of CouchDB. */
const eventsource: Form = {
  headers: { ...streamHeaders, 'content-type': 'text/event-stream; charset=utf-8' },
  first: firstEvent('welcome', '{}'),
  language: () => ({ gap: () => nothing, end: encodeEnd }),
  place: placeOf,
  heartbeat: 'event: heartbeat\ndata: \n\n',
  tellsPlaceInSilence: true,
}

/** The reason of the end, with the number to come back with, where there is one. */
function encodeEnd(ending: GatewayError, cursor?: string): Buffer {
  const end = namedWords.end(ending)
  return cursor === undefined ? end : Buffer.concat([Buffer.from(placeOf(cursor)), end])
}

export const streamForms: Readonly<Record<StreamFeed, Form>> = { continuous, eventsource }

/** The streams that are of one kind, and look for silence after the same time. */
export class StreamContexts {
  readonly #options: TransportContext
  readonly #houses = new Map<string, StreamContext>()

  constructor(options: TransportContext) {
    this.#options = options
  }

  /** @param silence its `interval` is taken in whole seconds, so that there are not too many of them to keep */
  houseOf(feed: StreamFeed, { interval, ends }: Silence): StreamContext {
    const seconds = Math.max(1, Math.round(interval / 1000))
    const key = `${feed} ${seconds} ${ends}`
    const known = this.#houses.get(key)
    if (known) return known
    const { language, place, heartbeat, tellsPlaceInSilence } = streamForms[feed]
    const made: StreamContext = {
      ...this.#options,
      heartbeats: new Heartbeats(seconds * 1000),
      endsWhenSilent: ends,
      places: new MemoizedBuffer(cursor => Buffer.from(place(cursor))),
      heartbeat: Buffer.from(heartbeat),
      tellsPlaceInSilence,
      language: language(this.#options),
    }
    this.#houses.set(key, made)
    return made
  }
}
