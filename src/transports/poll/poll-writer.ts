import type { Writable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { type Answer, answerOf, keepHeaders } from '../stream-writer.js'

/** An answer of which everything is there. */
export interface WholeResponse {
  /** Default: 200. */
  readonly status?: number
  /** Beside those that every answer here has, or in their place. */
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string | Buffer
}

/** Where the answer to one poll goes: all at once, or in parts. */
export interface PollWriter {
  /** Takes the parts of an answer after `begin`, and ends it. */
  readonly body: Writable
  /** Begins an answer in parts, with status 200. */
  begin(): void
  /** Writes an answer, instead of `begin`. */
  send(answer: WholeResponse): void
  /** Calls `gone` when nothing can be written any more, also after the answer. */
  onClose(gone: () => void): void
}

/** The answer that a reply writes, in either version of HTTP. The reply keeps the headers while the answer waits. */
export class ReplyWriter implements PollWriter {
  readonly body: Answer
  readonly #reply: FastifyReply

  constructor(reply: FastifyReply) {
    this.#reply = reply
    this.body = answerOf(reply)
  }

  begin(): void {
    keepHeaders(this.#reply)
  }

  send({ status = 200, headers = {}, body }: WholeResponse): void {
    keepHeaders(this.#reply)
    const answer = this.body
    answer.statusCode = status
    for (const [name, value] of Object.entries(headers)) answer.setHeader(name, value)
    answer.setHeader('content-length', Buffer.byteLength(body))
    answer.end(body)
  }

  onClose(gone: () => void): void {
    this.body.on('close', gone)
  }
}
