import { parsePayload } from '../../base/json-bounds.js'
import type { Event } from '../../journal/event.js'

/** Something that a mail may be about. */
export interface Alert {
  /** The event's; empty for what is no message. */
  readonly id: string
  /** Empty for what is no message. */
  readonly topic: string
  /** Milliseconds since 1970. */
  readonly time: number
  /** The payload as text, cut; in words where it is none. */
  readonly text: string
  /** What the payload says as JSON; `undefined` where it is none, or too large. */
  readonly json: unknown
}

/** Bytes of a payload that a mail shows. */
const maxShown = 16_384
/** Bytes of a payload that is looked into. */
const maxParsed = 1024 ** 2

/** What a mail says of an event. */
export function occurrenceOf({ id, topic, time, payload }: Event): Alert {
  const isCut = payload.length > maxShown
  const whole = textOf(isCut ? payload.subarray(0, wholeCharacters(payload, maxShown)) : payload)
  const text =
    whole === undefined
      ? `(${payload.length} bytes that are no text)`
      : isCut
        ? `${whole}… (${payload.length} bytes)`
        : whole
  return { id, topic, time, text, json: payload.length <= maxParsed ? parse(payload) : undefined }
}

/** The end of the last character that is whole before `end`, in UTF-8. */
function wholeCharacters(bytes: Buffer, end: number): number {
  let at = end
  while (at > end - 4 && ((bytes[at] ?? 0) & 0xc0) === 0x80) at--
  return at
}

/** `undefined` for what is no UTF-8, or has characters that no text has. */
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

/** A JSON value as a mail shows it: a text as it is, nothing for what is not there. */
export function shown(value: unknown): string {
  if (value === undefined) return ''
  if (typeof value === 'string') return value
  try {
    return JSON.stringify(value)
  } catch {
    // Deeper than the stack is; it was read without one.
    return '…'
  }
}

/** A member of a JSON value, at a path; `undefined` where there is none. */
export function memberOf(json: unknown, path: readonly string[]): unknown {
  let value = json
  for (const name of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}
