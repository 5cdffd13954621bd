import type { GatewayError } from '../../base/errors.js'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Encoder, Gap } from '../../hub/event-sink.js'
import { encodeText } from '../../websocket/frame-writer.js'
import { eventJson } from '../event-json.js'

/*
 * What a socket sends: JSON in text frames. Each is made as bytes that go to a connection as they are, so that those who
 * get the same event get the same bytes, and several events are one write.
 */

/** A message to a client. */
export function messageFrame(type: string, members: object): Buffer {
  return encodeText(oneLineJson({ type, ...members }))
}

const encodePlain: Encoder = event => encodeText(`{"type":"event",${eventJson(event, { json: false }).slice(1)}`)

const encodeWithJson: Encoder = event => encodeText(`{"type":"event",${eventJson(event, { json: true }).slice(1)}`)

/** The encoder of a form: for each the same function, so that sockets of one form share their bytes. */
export function socketEncoder({ json }: { readonly json: boolean }): Encoder {
  return json ? encodeWithJson : encodePlain
}

/** Something is missing here, of these filters, or of all. */
export function encodeGap({ reason, cursor, resumes, filters }: Gap): Buffer {
  return messageFrame('gap', { reason, cursor, resumes, ...(filters && { topics: filters }) })
}

/** All that was there has been sent; this is the place. */
export function encodeLive(cursor: string | undefined): Buffer {
  return messageFrame('live', { cursor })
}

/** The last thing that a client is told. */
export function encodeEnd({ reason, text: detail, retryAfter }: GatewayError, cursor: string | undefined): Buffer {
  return messageFrame('end', { reason, detail, ...(retryAfter !== undefined && { retryAfter }), cursor })
}
