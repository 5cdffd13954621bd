import type { GatewayError } from '../../base/errors.js'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Gap } from '../../hub/event-sink.js'
import { encodeText } from '../../websocket/frame-writer.js'
import { eventEncoders } from '../event-json.js'

/*
 * The messages of a socket: JSON in text frames. They are made as complete frames, so that all sockets share the bytes of an event, and several events
 * are one write.
 */

export function messageFrame(type: string, members: object): Buffer {
  return encodeText(oneLineJson({ type, ...members }))
}

export const socketEncoder = eventEncoders(json => encodeText(`{"type":"event",${json.slice(1)}`))

/** A gap, of these filters or of all. */
export function encodeGap({ reason, cursor, resumes, filters }: Gap): Buffer {
  return messageFrame('gap', { reason, cursor, resumes, ...(filters && { topics: filters }) })
}

/** Everything that was there has been sent, up to this cursor. */
export function encodeLive(cursor: string | undefined): Buffer {
  return messageFrame('live', { cursor })
}

export function encodeEnd({ reason, text: detail, retryAfter }: GatewayError, cursor: string | undefined): Buffer {
  return messageFrame('end', { reason, detail, ...(retryAfter !== undefined && { retryAfter }), cursor })
}
