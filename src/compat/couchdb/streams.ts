import type { GatewayError } from '../../base/errors.js'
import { memoizeCursor } from '../../transports/event-json.js'
import { Heartbeats } from '../../transports/heartbeats.js'
import type { ControlEvents, StreamContext } from '../../transports/sse/event-stream.js'
import { controlEvents } from '../../transports/sse/sse-encoding.js'
import { firstEvent, liveEvent, streamHeaders } from '../../transports/sse/stream-format.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { listEnd, maxPending, sequenceOf } from './positions.js'

/** Feeds without an end. */
export type StreamFeed = 'continuous' | 'eventsource'

/** Behaviour of a feed without changes. */
export interface Silence {
  /** In milliseconds. */
  readonly interval: number
  /** Whether the feed ends after the interval, instead of sending a heartbeat. */
  readonly ends: boolean
}

interface StreamFormat {
  readonly headers: Readonly<Record<string, string>>
  readonly first: string
  readonly controlEvents: (options: TransportContext) => ControlEvents
  /** The bytes that give the client its position. */
  readonly cursorEvent: (cursor: string | undefined) => string
  readonly heartbeat: string
  /** As `StreamContext.sendsCursorWhenIdle`. */
  readonly sendsCursorWhenIdle: boolean
}

const nothing = Buffer.alloc(0)

/** One row per line; empty lines are heartbeats. */
const continuous: StreamFormat = {
  headers: { ...streamHeaders, 'content-type': 'application/json; charset=utf-8' },
  first: '\n',
  controlEvents: ({ push }) => ({
    gap: () => nothing,
    end: (_ending, cursor) => Buffer.from(`{${listEnd(cursor, maxPending(push.journal, cursor))}\n`),
  }),
  cursorEvent: () => '\n',
  heartbeat: '\n',
  sendsCursorWhenIdle: false,
}

function encodeCursor(cursor: string | undefined): string {
  const sequence = sequenceOf(cursor) ?? 0
  return liveEvent(String(sequence), { last_seq: sequence })
}

/** One row per message; everything else is a named event. The heartbeat is CouchDB's. */
const eventsource: StreamFormat = {
  headers: { ...streamHeaders, 'content-type': 'text/event-stream; charset=utf-8' },
  first: firstEvent('welcome', '{}'),
  controlEvents: () => ({ gap: () => nothing, end: encodeEnd }),
  cursorEvent: encodeCursor,
  heartbeat: 'event: heartbeat\ndata: \n\n',
  sendsCursorWhenIdle: true,
}

/** The reason of the end, with the position to continue from, if there is one. */
function encodeEnd(error: GatewayError, cursor?: string): Buffer {
  const end = controlEvents.end(error)
  return cursor === undefined ? end : Buffer.concat([Buffer.from(encodeCursor(cursor)), end])
}

export const streamForms: Readonly<Record<StreamFeed, StreamFormat>> = { continuous, eventsource }

/**
 * The contexts of streams: one for all with the same format and heartbeat interval.
 *
 * @returns gets it; the interval is rounded to seconds, which bounds the number of contexts
 */
export function streamContexts(options: TransportContext): (feed: StreamFeed, silence: Silence) => StreamContext {
  const contexts = new Map<string, StreamContext>()
  return (feed, { interval, ends }) => {
    const seconds = Math.max(1, Math.round(interval / 1000))
    const key = `${feed} ${seconds} ${ends}`
    const { controlEvents, cursorEvent, heartbeat, sendsCursorWhenIdle } = streamForms[feed]
    const context = contexts.get(key) ?? {
      ...options,
      heartbeats: new Heartbeats(seconds * 1000),
      endsWhenIdle: ends,
      cursorEvents: memoizeCursor(cursor => Buffer.from(cursorEvent(cursor))),
      heartbeat: Buffer.from(heartbeat),
      sendsCursorWhenIdle,
      controlEvents: controlEvents(options),
    }
    contexts.set(key, context)
    return context
  }
}
