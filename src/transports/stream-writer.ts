import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { Writable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ignoreInput } from '../http/ignore-input.js'
import { isOnlyAnswer } from '../http/last-response.js'
import { detachFromServer } from './lone-connection.js'

/** An answer of either version of HTTP. */
export type Answer = ServerResponse | Http2ServerResponse

/** What there is behind a reply; the framework's types know of HTTP/1.1 alone. */
export function answerOf({ raw }: FastifyReply): Answer {
  return raw
}

/** Where the bytes of an answer go that has no end until somebody goes. */
export interface StreamWriter {
  /** Takes the bytes, and ends the answer. */
  readonly body: Writable
  /** What closes when the client is gone. */
  readonly peer: Pick<Writable, 'on' | 'once'>
  /** Writes the head and the first bytes; call it once, before anything is written to `body`. */
  begin(headers: Readonly<Record<string, string>>, first: string): void
}

/**
 * Gets at the wire of an answer. In HTTP/1.1 that is the connection itself, and the answer ends with it: nothing has to be
 * put around the bytes, and the same ones go to everybody, whatever the version. Where the client sent more requests behind it,
 * the bytes go in chunks.
 *
 * Nothing that comes after it on a connection of HTTP/1.1 is answered (RFC 9112 §9.6).
 *
 * @param silence for how long nothing may come in either direction, in milliseconds
 */
export function wireOf(request: FastifyRequest, reply: FastifyReply, silence: number): StreamWriter {
  const answer = answerOf(reply)
  if ('stream' in answer) {
    const { stream } = answer
    const begin: StreamWriter['begin'] = (headers, first) => {
      beginAnswer(reply, headers).write(first)
      allowSilence(request, reply, silence)
    }
    return { body: stream, peer: stream, begin }
  }
  const { socket } = request.raw
  if (isOnlyAnswer(answer)) {
    return { body: socket, peer: socket, begin: (headers, first) => takeConnection(request.raw, reply, headers, first) }
  }
  // In front of one that is not wanted any more.
  const begin: StreamWriter['begin'] = (headers, first) => {
    beginAnswer(reply, { ...headers, connection: 'close' }).write(first)
    ignoreInput(socket)
    allowSilence(request, reply, silence)
  }
  return { body: answer, peer: socket, begin }
}

/** A shorter time limit than that of other connections is not set. */
const usualSilence = 60_000

/**
 * Lets an answer that is not yet there take longer than connections may be silent. Over HTTP/1.1, the next request has the
 * usual limit again; over HTTP/2, this is that of the whole connection.
 *
 * @param silence for how long nothing may come in either direction, in milliseconds
 */
export function allowSilence({ raw: request }: FastifyRequest, reply: FastifyReply, silence: number): void {
  if (silence <= usualSilence) return
  const answer = answerOf(reply)
  if ('stream' in answer) answer.stream.session?.setTimeout(silence)
  else request.socket.setTimeout(silence)
}

/** Gives an answer the headers of its reply, for one that is written without the framework. */
export function keepHeaders(reply: FastifyReply): void {
  const answer = answerOf(reply)
  for (const [name, value] of Object.entries(reply.getHeaders())) if (value !== undefined) answer.setHeader(name, value)
}

/** Takes an answer over, and sets its head. */
export function beginAnswer(reply: FastifyReply, headers: Readonly<Record<string, string>>): Writable {
  reply.hijack()
  reply.headers(headers)
  keepHeaders(reply)
  return answerOf(reply).writeHead(200)
}

/**
 * Writes an answer of which nothing but the connection is left then: everybody else is told that it is complete, so that
 * the request, the answer, and all that the framework keeps for them can go. Of ten thousand streams, that is half of the
 * memory.
 */
function takeConnection(
  request: IncomingMessage,
  reply: FastifyReply,
  headers: Readonly<Record<string, string>>,
  first: string,
): void {
  const { socket } = request
  reply.headers(headers).header('connection', 'close').header('date', new Date().toUTCString())
  let head = 'HTTP/1.1 200 OK\r\n'
  for (const [name, value] of Object.entries(reply.getHeaders())) head += `${name}: ${value}\r\n`
  reply.hijack()
  socket.write(Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), Buffer.from(first)]))
  reply.raw.emit('finish')
  detachFromServer(socket)
  // By now it waits for the next request, and that has a time limit.
  socket.setTimeout(0)
}
