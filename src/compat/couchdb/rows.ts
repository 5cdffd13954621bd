import { createHash } from 'node:crypto'
import { parsePayload } from '../../base/json-bounds.js'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Encoder } from '../../hub/event-sink.js'
import type { Event } from '../../journal/event.js'
import { textOf } from '../../transports/event-json.js'

/*
 * Each event is a document of its own, which never changes: the event's payload under the event's id. Two messages on one topic
 * are two documents.
 */

/** Formats of rows: in a list, one per line, or as messages of an event stream. */
export type RowKind = 'list' | 'line' | 'message'

const kinds: Readonly<Record<RowKind, (row: string, event: Event) => string>> = {
  // The list drops the first comma.
  list: row => `,${row}`,
  line: row => `${row}\n`,
  message: (row, { sequence }) => `data: ${row}\nid: ${sequence}\n\n`,
}

/** The encoder of a kind of row; always the same function, so that the hub encodes each event once. */
export function rowEncoder(kind: RowKind, includeDocs: boolean): Encoder {
  return (includeDocs ? withDocs : withoutDocs)[kind]
}

/** For retained messages: they are not changes, and would be out of order. */
const nothing = Buffer.alloc(0)

const withDocs = encodersOf(true)
const withoutDocs = encodersOf(false)

function encodersOf(includeDocs: boolean): Readonly<Record<RowKind, Encoder>> {
  const encoderOf = (kind: RowKind): Encoder => {
    return event => (event.retained ? nothing : Buffer.from(kinds[kind](rowJson(event, includeDocs), event)))
  }
  return {
    list: encoderOf('list'),
    line: encoderOf('line'),
    message: encoderOf('message'),
  }
}

/** The row of an event, on one line. `topic` is an extension of mqway. */
export function rowJson(event: Event, includeDocs: boolean): string {
  const { sequence: seq, id, topic } = event
  const rev = revisionOf(id)
  const row = oneLineJson({ seq, id, changes: [{ rev }], topic })
  return includeDocs ? `${row.slice(0, -1)},"doc":${documentJson(event, rev)}}` : row
}

/** The only revision of a document. */
function revisionOf(id: string): string {
  return `1-${createHash('sha256').update(id).digest('hex').slice(0, 32)}`
}

function documentJson({ id, payload }: Event, rev: string): string {
  const own = { _id: id, _rev: rev }
  const text = textOf(payload)
  if (text === undefined) return oneLineJson({ ...own, payloadBase64: payload.toString('base64') })
  try {
    const fields = parsePayload(text)
    if (isObject(fields)) return oneLineJson({ ...own, ...withoutReserved(fields) })
  } catch {
    // Not JSON, or beyond the bounds of parsing.
  }
  return oneLineJson({ ...own, msg: text })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** CouchDB reserves names that begin with `_`. */
function withoutReserved(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !name.startsWith('_')))
}
