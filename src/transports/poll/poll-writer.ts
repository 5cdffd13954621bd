import type { Writable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { HttpResponse } from '../../http/unread-responses.js'
import { keepHeaders, responseOf } from '../stream-writer.js'

/** A response that is written at once. */
export interface WholeResponse {
  /** Default: 200. */
  readonly status?: number
  /** Added to the headers of every response here, or in their place. */
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string | Buffer
}

/** Writes the response to one poll: at once, or in parts. */
export interface PollWriter {
  /** Takes the parts after `begin`. */
  readonly body: Writable
  /** Begins a response in parts, with status 200. */
  begin(): void
  /** Writes a whole response, instead of `begin`. */
  send(response: WholeResponse): void
  /** Calls `gone` when the response is over or its client has left. */
  onClose(gone: () => void): void
}

/** Writes the response of a Fastify reply, over HTTP/1.1 or HTTP/2. */
export class ReplyWriter implements PollWriter {
  readonly body: HttpResponse
  readonly #reply: FastifyReply

  constructor(reply: FastifyReply) {
    this.#reply = reply
    this.body = responseOf(reply)
  }

  begin(): void {
    keepHeaders(this.#reply)
  }

  send({ status = 200, headers = {}, body }: WholeResponse): void {
    keepHeaders(this.#reply)
    const response = this.body
    response.statusCode = status
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
    response.setHeader('content-length', Buffer.byteLength(body))
    response.end(body)
  }

  onClose(gone: () => void): void {
    this.body.on('close', gone)
  }
}
