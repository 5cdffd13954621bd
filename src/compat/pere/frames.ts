import { isUtf8 } from 'node:buffer'
import type { Encoder } from '../../hub/event-sink.js'
import { parseId } from '../../journal/event.js'
import { firstEvent, liveEvent } from '../../transports/sse/stream-format.js'

/*
 * The format of a feed (HTML Living Standard §9.2). PERE's clients read `id`, `data` and `retry`, and ignore named events.
 */

/**
 * An event with its body: a `data` line for each of its lines, with LF for each kind of line break, which does not change
 * JSON. A body that is not UTF-8 is a named event in base64.
 *
 * Retained events have their ids, too, so that clients can send feedback; the feed's position follows after them.
 */
export const encodeEvent: Encoder = ({ id, payload }) => {
  if (!isUtf8(payload)) return Buffer.from(`id: ${id}\nevent: base64\ndata: ${payload.toString('base64')}\n\n`)
  const data = payload.toString().replaceAll(/\r\n|\r|\n/g, '\ndata: ')
  return Buffer.from(`id: ${id}\ndata: ${data}\n\n`)
}

/** The first event of each feed: the name of the device, for clients without one. */
export function feedStart(device: string): string {
  return firstEvent('device', device)
}

/** A heartbeat. The empty line is for clients that split the stream at empty lines, and would buffer each comment until the next event. */
export const heartbeat = Buffer.from(':\n\n')

/**
 * The position with which a client reconnects, also before its first event. Heartbeats do not contain it: some clients read the last id
 * after handling an event, and send it as the id of that event.
 */
export function encodePlace(cursor: string | undefined): Buffer {
  return cursor !== undefined && parseId(cursor) ? Buffer.from(liveEvent(cursor, { cursor })) : heartbeat
}
