import type { DeliveryOptions } from '../../delivery/delivery.js'
import type { StreamHouse, StreamLanguage } from '../../delivery/event-stream.js'
import { Heartbeats } from '../../delivery/heartbeats.js'
import { SharedBytes } from '../../delivery/shared-bytes.js'
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
  readonly language: (options: DeliveryOptions) => StreamLanguage
  /** What moves the place that a client comes back with. */
  readonly place: (cursor: string | undefined) => string
  readonly sign: (cursor: string | undefined) => string
}

const headers = {
  'cache-control': 'no-store',
  // nginx would otherwise keep rows back until they fill a page.
  'x-accel-buffering': 'no',
}

const nothing = Buffer.alloc(0)

/** One row a line; empty lines are signs of life. */
const continuous: Form = {
  headers: { ...headers, 'content-type': 'application/json; charset=utf-8' },
  first: '\n',
  language: ({ push }) => ({
    gap: () => nothing,
    end: (_ending, cursor) => Buffer.from(`{${lastWords(cursor, mostAfter(push.journal, cursor))}\n`),
  }),
  place: () => '\n',
  sign: () => '\n',
}

/** How soon an EventSource comes back, in milliseconds. */
const retry = 2000

const placeOf = (cursor: string | undefined): string => `id: ${sequenceOf(cursor) ?? 0}\n\n`

/** One row a message; the place alone is none. */
const eventsource: Form = {
  headers: { ...headers, 'content-type': 'text/event-stream; charset=utf-8' },
  first: `:\nretry: ${retry}\n\n`,
  language: () => ({ gap: () => nothing, end: (_ending, cursor) => Buffer.from(placeOf(cursor)) }),
  place: placeOf,
  sign: cursor => `event: heartbeat\ndata: \n${placeOf(cursor)}`,
}

export const streamForms: Readonly<Record<StreamFeed, Form>> = { continuous, eventsource }

/** The streams that are of one kind, and look for silence after the same time. */
export class StreamHouses {
  readonly #options: DeliveryOptions
  readonly #houses = new Map<string, StreamHouse>()

  constructor(options: DeliveryOptions) {
    this.#options = options
  }

  /** @param silence its `interval` is taken in whole seconds, so that there are not too many of them to keep */
  houseOf(feed: StreamFeed, { interval, ends }: Silence): StreamHouse {
    const seconds = Math.max(1, Math.round(interval / 1000))
    const key = `${feed} ${seconds} ${ends}`
    const known = this.#houses.get(key)
    if (known) return known
    const { language, place, sign } = streamForms[feed]
    const made: StreamHouse = {
      ...this.#options,
      heartbeats: new Heartbeats(seconds * 1000),
      endsWhenSilent: ends,
      places: new SharedBytes(cursor => Buffer.from(place(cursor))),
      signs: new SharedBytes(cursor => Buffer.from(sign(cursor))),
      language: language(this.#options),
    }
    this.#houses.set(key, made)
    return made
  }
}
