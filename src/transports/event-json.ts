import { z } from 'zod'
import { parsePayload } from '../base/json-bounds.js'
import { oneLineJson } from '../base/one-line-json.js'
import type { Event } from '../journal/event.js'

export interface EventJsonOptions {
  /** Whether a payload that is JSON is parsed as well, into `json`. */
  readonly json: boolean
}

/** An event as JSON on one line. */
export function eventJson({ id, topic, time, payload, retained }: Event, { json }: EventJsonOptions): string {
  const text = textOf(payload)
  const write = (more: object = {}): string =>
    oneLineJson({
      id,
      topic,
      time: new Date(time).toISOString(),
      ...(text === undefined ? { payloadBase64: payload.toString('base64') } : { payload: text }),
      ...more,
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

const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The bytes as text; `undefined` where they are not UTF-8. */
export function textOf(payload: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(payload)
  } catch {
    return undefined
  }
}

/** The schema of `eventJson`. */
export const eventSchema = z.object({
  id: z.string().describe('Opaque; as a cursor, it says: after this event'),
  topic: z.string(),
  time: z.iso.datetime().describe('When it was written down'),
  payload: z.string().optional().describe('Where it is valid UTF-8'),
  payloadBase64: z.string().optional().describe('Where it is not'),
  json: z.unknown().optional().describe('What a payload that is JSON says; with json=true'),
  retained: z.literal(true).optional().describe('It is the state of its topic, told to a newcomer'),
})
