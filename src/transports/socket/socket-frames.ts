import type { GatewayError } from '../../base/errors.js'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Encoder, Gap } from '../../hub/event-sink.js'
import { encodeText } from '../../websocket/frame-writer.js'
import { eventJson } from '../event-json.js'

/*
 * The messages of a socket: JSON in text frames. They are made as complete frames, so that all sockets share the bytes of an event, and several events
 * are one write.
 */

/** A message to a client. */
export function messageFrame(type: string, members: object): Buffer {
  return encodeText(oneLineJson({ type, ...members }))
}

const encodePlain: Encoder = event => encodeText(`{"type":"event",${eventJson(event, { json: false }).slice(1)}`)

const encodeWithJson: Encoder = event => encodeText(`{"type":"event",${eventJson(event, { json: true }).slice(1)}`)

/** The encoder of a format: always the same function, so that sockets share the encoded events. */
export function socketEncoder({ json }: { readonly json: boolean }): Encoder {
  return json ? encodeWithJson : encodePlain
}

/** A gap, of these filters or of all. */
export function encodeGap({ reason, cursor, resumes, filters }: Gap): Buffer {
  return messageFrame('gap', { reason, cursor, resumes, ...(filters && { topics: filters }) })
}

/** Everything that was there has been sent, up to this cursor. */
export function encodeLive(cursor: string | undefined): Buffer {
  return messageFrame('live', { cursor })
}

/** The last message. */
export function encodeEnd({ reason, text: detail, retryAfter }: GatewayError, cursor: string | undefined): Buffer {
  return messageFrame('end', { reason, detail, ...(retryAfter !== undefined && { retryAfter }), cursor })
}
