import type { Writable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { accessEntryOf } from '../http/access-log.js'
import { ignoreInput } from '../http/ignore-input.js'
import { isOnlyResponse } from '../http/last-response.js'
import type { HttpResponse } from '../http/unread-responses.js'

/** The response of a reply; Fastify's types know that of HTTP/1.1 only. */
export function responseOf({ raw }: FastifyReply): HttpResponse {
  return raw
}

/** Writes a response that lasts until one side ends it. */
export interface StreamWriter {
  /** Takes the bytes, and ends the response. */
  readonly body: Writable
  /** Emits 'close' when the client has left. */
  readonly peer: Pick<Writable, 'on' | 'once'>
  /** Writes the head and the first bytes; to be called once, before anything is written to `body`. */
  begin(headers: Readonly<Record<string, string>>, first: string): void
}

/**
 * The writer of an endless response. Over HTTP/1.1 it writes to the connection itself and the response ends with it, so that the same bytes go to
 * every client without chunk headers; where earlier requests of the connection are not answered yet, the response is chunked.
 *
 * Later requests of an HTTP/1.1 connection are not answered (RFC 9112 §9.6).
 *
 * @param silence milliseconds without a byte in either direction that the connection has to survive
 */
export function streamWriterOf(request: FastifyRequest, reply: FastifyReply, silence: number): StreamWriter {
  const response = responseOf(reply)
  if ('stream' in response) {
    const { stream } = response
    const begin: StreamWriter['begin'] = (headers, first) => {
      beginResponse(reply, headers).write(first)
      allowSilence(request, reply, silence)
    }
    return { body: stream, peer: stream, begin }
  }
  const { socket } = request.raw
  if (isOnlyResponse(response)) {
    return { body: socket, peer: socket, begin: (headers, first) => takeConnection(request, reply, headers, first) }
  }
  const begin: StreamWriter['begin'] = (headers, first) => {
    beginResponse(reply, { ...headers, connection: 'close' }).write(first)
    ignoreInput(socket)
    allowSilence(request, reply, silence)
  }
  return { body: response, peer: socket, begin }
}

/** Milliseconds of silence that every connection survives. */
const usualSilence = 60_000

/**
 * Lets a response wait longer than connections may be silent: over HTTP/1.1 until the next request, over HTTP/2 for the rest of the connection.
 *
 * @param silence milliseconds without a byte in either direction
 */
export function allowSilence({ raw: request }: FastifyRequest, reply: FastifyReply, silence: number): void {
  if (silence <= usualSilence) return
  const response = responseOf(reply)
  if ('stream' in response) response.stream.session?.setTimeout(silence)
  else request.socket.setTimeout(silence)
}

/** Copies the headers of a reply to its response, which is then written without Fastify. */
export function keepHeaders(reply: FastifyReply): void {
  const response = responseOf(reply)
  for (const [name, value] of Object.entries(reply.getHeaders()))
    if (value !== undefined) response.setHeader(name, value)
}

/** Takes a response over from Fastify, with status 200. */
export function beginResponse(reply: FastifyReply, headers: Readonly<Record<string, string>>): Writable {
  reply.hijack()
  reply.headers(headers)
  keepHeaders(reply)
  return responseOf(reply).writeHead(200)
}

/**
 * Writes the head of a response and keeps nothing but its connection: Node and Fastify take the response for complete, so that the request, the
 * response and what belongs to them can be collected. That is a third of the memory of ten thousand streams.
 */
function takeConnection(
  { raw: request }: FastifyRequest,
  reply: FastifyReply,
  headers: Readonly<Record<string, string>>,
  first: string,
): void {
  const { socket } = request
  reply.headers(headers).header('connection', 'close').header('date', new Date().toUTCString())
  let head = 'HTTP/1.1 200 OK\r\n'
  for (const [name, value] of Object.entries(reply.getHeaders())) head += `${name}: ${value}\r\n`
  reply.hijack()
  const bytes = Buffer.from(`${head}\r\n`, 'latin1')
  accessEntryOf(request)?.detach(socket, bytes.length)
  socket.write(Buffer.concat([bytes, Buffer.from(first)]))
  reply.raw.emit('finish')
  ignoreInput(socket)
  // Node has set the keep-alive timeout, which is for a next request.
  socket.setTimeout(0)
}
