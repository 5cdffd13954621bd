import { isUtf8 } from 'node:buffer'
import type { Encoder } from '../../hub/event-sink.js'
import { parseId } from '../../journal/event.js'
import { firstEvent, liveEvent } from '../../transports/sse/stream-form.js'

/*
 * What a feed looks like (HTML Living Standard §9.2). PERE's clients know `id`, `data` and `retry`: what has a name is
 * nothing to them.
 */

/**
 * An event with the body that was published: a `data` line for each of its lines, and each kind of line break becomes LF,
 * which is all the same to JSON. What is no text comes under a name of its own.
 *
 * What is retained has its id too, so that there can be feedback to it; where the feed is comes right after all of it.
 */
export const encodeEvent: Encoder = ({ id, payload }) => {
  if (!isUtf8(payload)) return Buffer.from(`id: ${id}\nevent: base64\ndata: ${payload.toString('base64')}\n\n`)
  const data = payload.toString().replaceAll(/\r\n|\r|\n/g, '\ndata: ')
  return Buffer.from(`id: ${id}\ndata: ${data}\n\n`)
}

/** The first event of each feed: the name of the device, for those who gave none. */
export function feedStart(device: string): string {
  return firstEvent('device', device)
}

/** A sign of life. The empty line is for clients that cut the stream at empty lines, and would keep each comment until the next event. */
export const heartbeat = Buffer.from(':\n\n')

/**
 * Tells the id that a client comes back with: one that has not got anything yet has one, too. Heartbeats do not tell it: some clients read the last id
 * when they have dealt with an event, and send it as that event's.
 */
export function encodePlace(cursor: string | undefined): Buffer {
  return cursor !== undefined && parseId(cursor) ? Buffer.from(liveEvent(cursor, { cursor })) : heartbeat
}
