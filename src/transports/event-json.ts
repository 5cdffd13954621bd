import { z } from 'zod'
import { parsePayload } from '../base/json-bounds.js'
import { oneLineJson } from '../base/one-line-json.js'
import type { Encoder } from '../hub/event-sink.js'
import type { Event } from '../journal/event.js'
import { eventProperties, propertiesJson } from './property-json.js'

export interface EventJsonOptions {
  /** Whether a payload that is JSON is parsed as well, into `json`. */
  readonly json: boolean
}

export function eventJson(event: Event, { json }: EventJsonOptions): string {
  const { id, topic, time, payload, retained } = event
  const text = textOf(payload)
  const write = (more: object = {}): string =>
    oneLineJson({
      id,
      topic,
      time: new Date(time).toISOString(),
      ...(text === undefined ? { payloadBase64: payload.toString('base64') } : { payload: text }),
      ...more,
      ...propertiesJson(event),
      ...(retained && { retained }),
    })
  if (!json || text === undefined) return write()
  try {
    return write({ json: parsePayload(text) })
  } catch {
    // It is not JSON, or exceeds the bounds of JSON.
    return write()
  }
}

/**
 * The encoders of a format, without and with the parsed payloads: always the same two functions, so that the hub encodes each event once.
 *
 * @param encode gets the JSON of an event
 */
export function eventEncoders(encode: (json: string, event: Event) => Buffer): (options: EventJsonOptions) => Encoder {
  const plain: Encoder = event => encode(eventJson(event, { json: false }), event)
  const withJson: Encoder = event => encode(eventJson(event, { json: true }), event)
  return ({ json }) => (json ? withJson : plain)
}

/** Memoizes the last encoded cursor: ten thousand connections in a row have the same one. */
export function memoizeCursor(encode: EncodeCursor): EncodeCursor {
  let last: { readonly cursor: string | undefined; readonly bytes: Buffer } | undefined
  return cursor => {
    if (!last || last.cursor !== cursor) last = { cursor, bytes: encode(cursor) }
    return last.bytes
  }
}

export type EncodeCursor = (cursor: string | undefined) => Buffer

const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The bytes as text; `undefined` if they are not UTF-8. */
export function textOf(payload: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(payload)
  } catch {
    return undefined
  }
}

export const eventSchema = z.object({
  id: z.string().describe('Opaque; as a cursor, the position after this event'),
  topic: z.string(),
  time: z.iso.datetime().describe('Time of storage'),
  payload: z.string().optional().describe('The payload, if it is valid UTF-8'),
  payloadBase64: z.string().optional().describe('The payload, if it is not valid UTF-8'),
  json: z.unknown().optional().describe('The parsed payload, if it is JSON; with json=true'),
  ...eventProperties,
  retained: z.literal(true).optional().describe('The retained message of the topic, for a new subscriber'),
})
