import { isUtf8 } from 'node:buffer'
import { parsePayload } from '../../base/json-bounds.js'
import type { Event } from '../../journal/event.js'

/**
 * An event in `/admin/events/:channel`: PERE's `device`, `time`, `id` and `data` first, then the other members of its body. The first
 * three are always present; a `channel` equal to the topic is left out.
 *
 * @param device its publisher, if known
 */
export function eventView({ id, topic, time, payload }: Event, device: string | undefined): object {
  const { channel, ...body } = bodyOf(payload)
  return {
    device: device ?? null,
    time: new Date(time).toISOString(),
    id,
    // Before the other members.
    ...('data' in body && { data: body['data'] }),
    ...(channel !== undefined && channel !== topic && { channel }),
    ...body,
  }
}

function bodyOf(payload: Buffer): Readonly<Record<string, unknown>> {
  if (!isUtf8(payload)) return { dataBase64: payload.toString('base64') }
  const text = payload.toString()
  const value = jsonOrText(text)
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
  return isObject ? (value as Record<string, unknown>) : { data: value }
}

/** The value of JSON; a text if it is not JSON, or beyond the bounds of parsing. */
function jsonOrText(text: string): unknown {
  try {
    return parsePayload(text)
  } catch {
    return text
  }
}

export interface DeviceState {
  readonly op: 'feed' | 'feedback'
  /** In milliseconds since 1970. */
  readonly at: number
  readonly lastEventId: string
}

/** A device in `/admin/devices/:channel`. */
export function deviceView({ op, at, lastEventId }: DeviceState): object {
  return { op, at: new Date(at).toISOString(), 'Last-Event-Id': lastEventId }
}

/**
 * Formats a value as PERE does: one member per line, to a bounded depth. The indentation of deeply nested bodies would fill the
 * memory.
 *
 * @param levels number of levels with one member per line
 */
export function formatJson(value: unknown, levels: number, indent = ''): string {
  if (levels === 0 || typeof value !== 'object' || value === null) return JSON.stringify(value)
  const inner = `${indent}  `
  const isList = Array.isArray(value)
  const lines = isList
    ? value.map(item => formatJson(item, levels - 1, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}:${formatJson(item, levels - 1, inner)}`)
  const [open, close] = isList ? '[]' : '{}'
  if (lines.length === 0) return `${open}${close}`
  return `${open}\n${lines.map(line => inner + line).join(',\n')}\n${indent}${close}`
}
