import { parsePayload } from '../../base/json-bounds.js'
import type { Event } from '../../journal/event.js'

/** The subject of a mail or a call: an event on a topic, or a change of the broker connection. */
export interface Alert {
  /** The event; `undefined` for changes of the broker connection. */
  readonly event?: Event
  /** The event's id; empty for changes of the broker connection. */
  readonly id: string
  /** Empty for changes of the broker connection. */
  readonly topic: string
  /** Milliseconds since 1970. */
  readonly time: number
  /** The payload as text, truncated; a description of a binary payload. */
  readonly text: string
  /** The parsed payload; `undefined` if it is not JSON, or too large. */
  readonly json: unknown
}

/** Bytes of a payload that a mail shows. */
const maxShown = 16_384
/** Maximum bytes of a payload that is parsed. */
const maxParsed = 1024 ** 2

/** The alert of an event. Its text and JSON are read on demand, once. */
export function alertOf(event: Event): Alert {
  const { id, topic, time, payload } = event
  let text: string | undefined
  let json: { readonly value: unknown } | undefined
  return {
    ...{ event, id, topic, time },
    get text() {
      text ??= textOfPayload(payload)
      return text
    },
    get json() {
      json ??= { value: payload.length <= maxParsed ? parse(payload) : undefined }
      return json.value
    },
  }
}

/** The payload as text, truncated; a description of a binary one. */
function textOfPayload(payload: Buffer): string {
  const isCut = payload.length > maxShown
  const whole = textOf(isCut ? payload.subarray(0, completeCharacters(payload, maxShown)) : payload)
  if (whole === undefined) return `(${payload.length} bytes that are no text)`
  return isCut ? `${whole}… (${payload.length} bytes)` : whole
}

/** The end of the last complete UTF-8 character before `end`. */
function completeCharacters(bytes: Buffer, end: number): number {
  let at = end
  while (at > end - 4 && ((bytes[at] ?? 0) & 0xc0) === 0x80) at--
  return at
}

/** `undefined` for bytes that are not UTF-8, or contain control characters. */
function textOf(bytes: Buffer): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return /[^\P{Cc}\t\n\r]/u.test(text) ? undefined : text
  } catch {
    return undefined
  }
}

function parse(payload: Buffer): unknown {
  try {
    return parsePayload(new TextDecoder('utf-8', { fatal: true }).decode(payload))
  } catch {
    return undefined
  }
}

/** A JSON value as text: strings as they are, nothing for `undefined`. */
export function valueText(value: unknown): string {
  if (value === undefined) return ''
  if (typeof value === 'string') return value
  try {
    return JSON.stringify(value)
  } catch {
    // Nested more deeply than the stack.
    return '…'
  }
}

/** The member of a JSON value at a path; `undefined` if there is none. */
export function memberOf(json: unknown, path: readonly string[]): unknown {
  let value = json
  for (const name of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}
