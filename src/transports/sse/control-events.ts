import type { GatewayError } from '../../base/errors.js'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Gap } from '../../hub/event-sink.js'
import type { ControlEvents } from './event-stream.js'

/** Something is missing here. */
function encodeGap({ reason, cursor, resumes }: Gap): Buffer {
  return Buffer.from(`event: gap\ndata: ${oneLineJson({ reason, cursor, resumes })}\n\n`)
}

/** The last thing that a client is told. */
function encodeEnd({ reason, text: detail }: GatewayError): Buffer {
  return Buffer.from(`event: end\ndata: ${oneLineJson({ reason, detail })}\n\n`)
}

/** As events with names of their own: whoever listens to nothing but messages does not hear of them. */
export const controlEvents: ControlEvents = { gap: encodeGap, end: encodeEnd }
