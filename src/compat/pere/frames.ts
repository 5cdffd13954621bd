import { isUtf8 } from 'node:buffer'
import { parseId } from '../../push/event.js'
import type { Encoder } from '../../push/sink.js'

/*
 * What a feed looks like (HTML Living Standard §9.2). PERE's clients know `id`, `data` and `retry`: what has a name is
 * nothing to them.
 */

/** How soon a client comes back, in milliseconds. Less than 1000 is at once for em-eventsource. */
const retry = 2000
const leastRetry = 1000

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

/** How each feed begins: the comment is for those who wait for a first byte, the name for those who gave none. */
export function feedStart(device: string): string {
  return `:\nretry: ${retry}\n\nevent: device\ndata: ${device}\n\n`
}

/** Moves the place that a client comes back with: somebody who has not got anything yet has one, too. */
export function encodePlace(cursor: string | undefined): Buffer {
  return cursor !== undefined && parseId(cursor) ? Buffer.from(`id: ${cursor}\n\n`) : encodeSign()
}

/**
 * A sign of life. It moves nothing: some clients read the last id when they have dealt with an event, and send it as that
 * event's.
 */
export function encodeSign(): Buffer {
  return Buffer.from(':\n\n')
}

/** What somebody is told who should come back later. @param seconds from now */
export function encodeLater(seconds: number): string {
  return `retry: ${Math.max(leastRetry, Math.ceil(seconds * 1000))}\n\n`
}
