import { createHash } from 'node:crypto'
import { parsePayload } from '../../base/json-bounds.js'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Encoder } from '../../hub/event-sink.js'
import type { Event } from '../../journal/event.js'
import { textOf } from '../../transports/payload-text.js'

/*
 * Each event is a document of its own, which never changes: what its payload says, under the event's id. So what somebody
 * was told of once is never told again as something else, and two messages on one topic are two documents.
 */

/** The feeds whose rows look different: in a list, one line each, or as messages of an event stream. */
export type RowKind = 'list' | 'line' | 'message'

const kinds: Readonly<Record<RowKind, (row: string, event: Event) => string>> = {
  // What puts the list together takes the comma off the first one.
  list: row => `,${row}`,
  line: row => `${row}\n`,
  message: (row, { sequence }) => `data: ${row}\nid: ${sequence}\n\n`,
}

/** The encoder of a kind of row: for each the same function. */
export function rowEncoder(kind: RowKind, includeDocs: boolean): Encoder {
  return (includeDocs ? withDocs : withoutDocs)[kind]
}

/** The state of a topic whose event has gone is no change, and would come out of its order. */
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

/** The row of an event in a list of changes, on one line. CouchDB has no `topic` there. */
export function rowJson(event: Event, includeDocs: boolean): string {
  const { sequence: seq, id, topic } = event
  const rev = revisionOf(id)
  const row = oneLineJson({ seq, id, changes: [{ rev }], topic })
  return includeDocs ? `${row.slice(0, -1)},"doc":${documentJson(event, rev)}}` : row
}

/** The first revision there is, and the last one. */
function revisionOf(id: string): string {
  return `1-${createHash('sha256').update(id).digest('hex').slice(0, 32)}`
}

function documentJson({ id, payload }: Event, rev: string): string {
  const own = { _id: id, _rev: rev }
  const text = textOf(payload)
  if (text === undefined) return oneLineJson({ ...own, payloadBase64: payload.toString('base64') })
  try {
    const fields = parsePayload(text)
    if (isObject(fields)) return oneLineJson({ ...own, ...withoutSpecial(fields) })
  } catch {
    // No JSON, or more than is looked into.
  }
  return oneLineJson({ ...own, msg: text })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Names that begin with `_` are CouchDB's own. */
function withoutSpecial(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !name.startsWith('_')))
}
