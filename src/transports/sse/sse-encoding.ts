import { isUtf8 } from 'node:buffer'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Encoder } from '../../hub/event-sink.js'
import { type Event, parseId } from '../../journal/event.js'
import { eventEncoders } from '../event-json.js'
import type { ControlEvents } from './event-stream.js'
import { commentLine, firstEvent, liveEvent } from './stream-format.js'

/*
 * The encoding of event streams (HTML Living Standard §9.2). Lines end with LF; a comment begins with a colon.
 */

export interface StreamFormat {
  /** Whether events are JSON with their topic, or bare payloads. */
  readonly enveloped: boolean
  /** As in `EventJsonOptions`; for `enveloped` only. */
  readonly json: boolean
}

const [lineFeed, carriageReturn] = [0x0a, 0x0d]

/** The encoder of a format: always the same function, so that streams share the encoded events. */
export function streamEncoder({ enveloped, json }: StreamFormat): Encoder {
  return enveloped ? envelopedEncoder({ json }) : encodeBare
}

const envelopedEncoder = eventEncoders((json, event) => Buffer.from(`${idLine(event)}data: ${json}\n\n`))

const encodeBare: Encoder = event => {
  const { payload } = event
  // CR would end a line as LF does.
  const carried = isUtf8(payload) && !payload.includes(carriageReturn)
  if (!carried) return Buffer.from(`${idLine(event)}event: base64\ndata: ${payload.toString('base64')}\n\n`)
  const text = payload.toString()
  const data = payload.includes(lineFeed) ? text.replaceAll('\n', '\ndata: ') : text
  return Buffer.from(`${idLine(event)}data: ${data}\n\n`)
}

/** No id within the retained messages: a client could not continue from there. */
function idLine({ id, retained }: Event): string {
  return retained ? '' : `id: ${id}\n`
}

/** The first event of a stream. */
export interface Welcome {
  /** The id for `POST /v1/connections/…`. */
  readonly connection: string
  readonly device: string
  /** Seconds; after twice that silence, the stream is dead. */
  readonly heartbeat: number
}

/** Encodes the first event. */
export function streamStart(welcome: Welcome): string {
  return firstEvent('welcome', oneLineJson(welcome))
}

/**
 * Encodes the event that sets the client's cursor; a comment if there is none yet, because the cursor of a request may be any text, with line feeds in
 * it.
 */
export function encodeCursor(cursor: string | undefined): Buffer {
  return Buffer.from(cursor !== undefined && parseId(cursor) ? liveEvent(cursor, { cursor }) : commentLine)
}

/** Control events with names of their own: a client that listens to `message` only does not get them. */
export const controlEvents: ControlEvents = {
  gap: ({ reason, cursor, resumes }) =>
    Buffer.from(`event: gap\ndata: ${oneLineJson({ reason, cursor, resumes })}\n\n`),
  end: ({ reason, text: detail }) => Buffer.from(`event: end\ndata: ${oneLineJson({ reason, detail })}\n\n`),
}
