import { parsePayload } from '../base/json-bounds.js'
import { oneLineJson } from '../base/one-line-json.js'
import type { Event } from '../journal/event.js'
import { textOf } from './payload-text.js'

/** How an event is written as JSON. */
export interface EventJsonOptions {
  /** Whether a payload that is JSON also comes as what it says, under `json`. */
  readonly json: boolean
}

/** An event as clients get it, on one line: the payload as text, or as base64 where it is none. */
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
    // No JSON, or more than is looked into.
    return write()
  }
}
