import type { Writable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { BodyEncoder } from '../../http/compressor.js'
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
  readonly #encoder: BodyEncoder | undefined

  /** @param encoder compresses whole responses; left out for none */
  constructor(reply: FastifyReply, encoder?: BodyEncoder) {
    this.#reply = reply
    this.#encoder = encoder
    this.body = responseOf(reply)
  }

  begin(): void {
    keepHeaders(this.#reply)
  }

  send(whole: WholeResponse): void {
    sendEncoded(whole, this.#encoder, encoded => this.#send(encoded))
  }

  #send({ status = 200, headers = {}, body }: WholeResponse): void {
    const response = this.body
    // The client may have left while the body was compressed.
    if ('stream' in response ? response.stream.destroyed : response.destroyed) return
    keepHeaders(this.#reply)
    response.statusCode = status
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
    response.setHeader('content-length', Buffer.byteLength(body))
    response.end(body)
  }

  onClose(gone: () => void): void {
    this.body.on('close', gone)
  }
}

/** Calls `send` with the response as its client accepts it: at once, or when it is compressed. */
export function sendEncoded(
  whole: WholeResponse,
  encoder: BodyEncoder | undefined,
  send: (response: WholeResponse) => void,
): void {
  const encoding = encoder?.encode(whole.body)
  if (encoder === undefined || encoding === undefined) return send(whole)
  const headers = { ...whole.headers, 'content-encoding': encoder.coding }
  encoding.then(
    body => send(body === undefined ? whole : { ...whole, headers, body }),
    () => send(whole),
  )
}
