import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { Writable } from 'node:stream'
import type { UnreadResponses } from '../http/unread-responses.js'
import type { PollWriter, WholeResponse } from './poll/poll-writer.js'

/** What an answer that is written without Node's HTTP needs beside its own. */
export interface ConnectionAnswer {
  readonly socket: Socket
  /** Header lines that every answer has, each with its line end. */
  readonly headers: string
  /** As in the header `Date`. */
  date(): string
  /** The answer has been written, and there is room for another one. */
  readonly answered: (status: number) => void
  /** Bounds what is held of answers meanwhile: Node's server knows nothing of these. */
  readonly untaken: UnreadResponses
}

/** Answers on a connection of HTTP/1.1, one after the other, written to that itself. */
export class ConnectionWriter implements PollWriter {
  readonly #options: ConnectionAnswer
  #body: ChunkedBody | undefined
  #gone: (() => void) | undefined

  constructor(options: ConnectionAnswer) {
    this.#options = options
  }

  get body(): Writable {
    return this.#body ?? this.#options.socket
  }

  begin(): void {
    const { socket, answered } = this.#options
    socket.write(this.#head(200, 'Transfer-Encoding: chunked\r\n'))
    this.#body = new ChunkedBody(socket, () => {
      this.#body = undefined
      answered(200)
    })
  }

  send({ status = 200, headers = {}, body }: WholeResponse): void {
    const { socket, answered, untaken } = this.#options
    let own = ''
    for (const [name, value] of Object.entries(headers)) own += `${name}: ${value}\r\n`
    const head = this.#head(status, `${own}content-length: ${Buffer.byteLength(body)}\r\n`)
    if (typeof body === 'string') socket.write(head + body)
    else {
      socket.cork()
      socket.write(head)
      socket.write(body)
      socket.uncork()
    }
    if (!socket.writableNeedDrain) return answered(status)
    untaken.add(socket)
    socket.once('drain', () => {
      untaken.delete(socket)
      answered(status)
    })
  }

  onClose(gone: () => void): void {
    this.#gone = gone
  }

  /** The connection is closed before there was an answer. */
  closed(): void {
    this.#gone?.()
  }

  #head(status: number, own: string): string {
    const { headers, date } = this.#options
    return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${headers}${own}Date: ${date()}\r\n\r\n`
  }
}

/** A body in chunks (RFC 9112 §7.1). A destroyed one ends the connection, so that nobody takes it for complete. */
class ChunkedBody extends Writable {
  readonly #socket: Socket
  readonly #answered: () => void

  constructor(socket: Socket, answered: () => void) {
    super({ highWaterMark: socket.writableHighWaterMark })
    this.#socket = socket
    this.#answered = answered
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, written: () => void): void {
    // An empty one would end the body.
    if (chunk.length === 0) return written()
    const socket = this.#socket
    socket.cork()
    socket.write(`${chunk.length.toString(16)}\r\n`)
    socket.write(chunk)
    socket.write('\r\n')
    socket.uncork()
    whenThereIsRoom(socket, written)
  }

  override _final(done: () => void): void {
    this.#socket.write('0\r\n\r\n')
    done()
    // Node's server does not expect a request while it has stopped reading for want of room.
    whenThereIsRoom(this.#socket, this.#answered)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.writableFinished) this.#socket.destroy()
    done(error)
  }
}

function whenThereIsRoom(socket: Socket, then: () => void): void {
  if (socket.writableNeedDrain) socket.once('drain', then)
  else then()
}
