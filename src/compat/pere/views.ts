import { isUtf8 } from 'node:buffer'
import { parsePayload } from '../../base/json-bounds.js'
import type { Event } from '../../journal/event.js'

/**
 * An event as `/admin/events/:channel` shows it: the members of its body, of which PERE's `device`, `time`, `id` and `data`
 * come first, and the first three are there in any case. Its `channel` is left out, as everybody knows it there.
 *
 * @param device who published it, where that is known
 */
export function eventView({ id, topic, time, payload }: Event, device: string | undefined): object {
  const { channel, ...body } = bodyOf(payload)
  return {
    device: device ?? null,
    time: new Date(time).toISOString(),
    id,
    // Before the others, where it is there at all.
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

/** What is no JSON is a text, and so is more than is looked into. */
function jsonOrText(text: string): unknown {
  try {
    return parsePayload(text)
  } catch {
    return text
  }
}

/** What a device did last. */
export interface DeviceState {
  readonly op: 'feed' | 'feedback'
  /** In milliseconds since 1970. */
  readonly at: number
  readonly lastEventId: string
}

/** A device as `/admin/devices/:channel` shows it. */
export function deviceView({ op, at, lastEventId }: DeviceState): object {
  return { op, at: new Date(at).toISOString(), 'Last-Event-Id': lastEventId }
}

/**
 * Writes a value as PERE shows it: each member on a line of its own, down to a level below which everything is on one line.
 * Somebody's body may be nested so deeply that the indentation alone would fill the memory.
 *
 * @param levels how many are laid out
 */
export function laidOut(value: unknown, levels: number, indent = ''): string {
  if (levels === 0 || typeof value !== 'object' || value === null) return JSON.stringify(value)
  const inner = `${indent}  `
  const isList = Array.isArray(value)
  const lines = isList
    ? value.map(item => laidOut(item, levels - 1, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}:${laidOut(item, levels - 1, inner)}`)
  const [open, close] = isList ? '[]' : '{}'
  if (lines.length === 0) return `${open}${close}`
  return `${open}\n${lines.map(line => inner + line).join(',\n')}\n${indent}${close}`
}
