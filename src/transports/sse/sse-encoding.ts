import { isUtf8 } from 'node:buffer'
import type { GatewayError } from '../../base/errors.js'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Encoder, Gap } from '../../hub/event-sink.js'
import { type Event, parseId } from '../../journal/event.js'
import { eventJson } from '../event-json.js'
import type { ControlEvents } from './event-stream.js'
import { commentLine, firstEvent, liveEvent } from './stream-format.js'

/*
 * What an event stream looks like (HTML Living Standard §9.2). Lines end with LF; a comment begins with a colon.
 */

/** How an event stream is written. */
export interface StreamFormat {
  /** Whether events come as JSON with their topic, or as the bare payload. */
  readonly enveloped: boolean
  /** As in `EventJsonOptions`; enveloped ones only. */
  readonly json: boolean
}

const [lineFeed, carriageReturn] = [0x0a, 0x0d]

/** The encoder of a form: for each the same function, so that streams of one form share their bytes. */
export function streamEncoder({ enveloped, json }: StreamFormat): Encoder {
  if (!enveloped) return encodeBare
  return json ? encodeWithJson : encodeEnveloped
}

const encodeEnveloped: Encoder = event => Buffer.from(`${idLine(event)}data: ${eventJson(event, { json: false })}\n\n`)

const encodeWithJson: Encoder = event => Buffer.from(`${idLine(event)}data: ${eventJson(event, { json: true })}\n\n`)

const encodeBare: Encoder = event => {
  const { payload } = event
  // CR would end a line as LF does, and nobody could tell them apart.
  const carried = isUtf8(payload) && !payload.includes(carriageReturn)
  if (!carried) return Buffer.from(`${idLine(event)}event: base64\ndata: ${payload.toString('base64')}\n\n`)
  const text = payload.toString()
  const data = payload.includes(lineFeed) ? text.replaceAll('\n', '\ndata: ') : text
  return Buffer.from(`${idLine(event)}data: ${data}\n\n`)
}

/** A place in the middle of a list of states is none to come back to. */
function idLine({ id, retained }: Event): string {
  return retained ? '' : `id: ${id}\n`
}

/** What a client is told when its stream is open. */
export interface Welcome {
  /** What the connection is called in `POST /v1/connections/…`. */
  readonly connection: string
  readonly device: string
  /** Seconds; after twice as much silence, the stream is dead. */
  readonly heartbeat: number
}

/** The first event of each stream. */
export function streamStart(welcome: Welcome): string {
  return firstEvent('welcome', oneLineJson(welcome))
}

/**
 * Tells the cursor that a client comes back with. A comment where there is none yet: the cursor that a client came with may be any text, with line
 * feeds in it.
 */
export function encodeCursor(cursor: string | undefined): Buffer {
  return Buffer.from(cursor !== undefined && parseId(cursor) ? liveEvent(cursor, { cursor }) : commentLine)
}

/** Something is missing here. */
function encodeGap({ reason, cursor, resumes }: Gap): Buffer {
  return Buffer.from(`event: gap\ndata: ${oneLineJson({ reason, cursor, resumes })}\n\n`)
}

/** The last thing that a client is told. */
function encodeEnd({ reason, text: detail }: GatewayError): Buffer {
  return Buffer.from(`event: end\ndata: ${oneLineJson({ reason, detail })}\n\n`)
}

/** As events with names of their own: whoever listens to nothing but messages does not hear of them. */
export const controlEvents: ControlEvents = { gap: encodeGap, end: encodeEnd }
