import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { Writable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Logger } from '../../base/log.js'
import { type AccessEntry, accessEntryOf } from '../../http/access-log.js'
import type { BodyEncoder } from '../../http/compressor.js'
import { newestResponse } from '../../http/last-response.js'
import { findCursor } from '../../http/query-cache.js'
import { pathOf } from '../../http/request-target.js'
import { logRequest } from '../../http/responses.js'
import type { UnreadResponses } from '../../http/unread-responses.js'
import { type PollWriter, sendEncoded, type WholeResponse } from './poll-writer.js'

/** Bytes of a head; a poll with a longer one is always parsed, because each connection keeps its own. A browser's has some 700. */
const maxHead = 4096

/** How long a connection may wait for its next request, in milliseconds; as Node's own limit. */
const keepAliveTimeout = 5000

export interface RepeatedPoll {
  /** How long its response may take, in milliseconds. */
  readonly timeout: number
  /** Compresses its responses; left out for none. */
  readonly encoder?: BodyEncoder | undefined
  /** Characters of a cursor. */
  readonly maxCursorLength: number
  /** Admits and answers it with this cursor; `false`, with nothing written, where Node has to parse it so that the refusal is complete. */
  answer(cursor: string, writer: PollWriter): boolean | Promise<boolean>
}

/**
 * Answers the next poll of a connection without parsing it, which halves the cost of a poll (docs/decisions/0012).
 *
 * The bytes of a client's next poll are known in advance: the head of the request that Node has parsed and the gateway has admitted on this
 * connection, with the cursor of the response just sent. A read that equals those bytes, all of them and no others, while nothing else is under way
 * on the connection, is answered here. Every other read goes to Node's parser, untouched, and ends the expectation. Nothing is parsed here and no byte
 * is a client's to choose, so no two parsers can disagree about where a request ends (RFC 9112 §11.2). Each repetition is counted by the rate limit
 * and authenticated anew; where either refuses, the read goes to Node's parser as well.
 */
export class RepeatedPolls {
  readonly #log: Logger
  readonly #unread: UnreadResponses
  readonly #connections = new WeakMap<Socket, PollConnection>()

  constructor({ log, unreadResponses }: { readonly log: Logger; readonly unreadResponses: UnreadResponses }) {
    this.#log = log
    this.#unread = unreadResponses
  }

  /**
   * Expects the repetition of a poll. To be called before it is answered.
   *
   * @param peer the client's address
   * @returns to be called with the cursor of each response, `undefined` for one without
   */
  expect(
    request: FastifyRequest,
    reply: FastifyReply,
    peer: string,
    poll: RepeatedPoll,
  ): (cursor: string | undefined) => void {
    const { raw } = request
    const { socket, url = '' } = raw
    const cursor = isPlain(raw) ? findCursor(url, poll.maxCursorLength) : undefined
    const head = cursor && headOf(raw)
    if (!cursor || !head || head.length > maxHead) return () => {}
    const known = this.#connections.get(socket)
    // On its first poll, the connection's reads have not been observed yet.
    if (!known) this.#connections.set(socket, new PollConnection(socket, this.#unread))
    if (!known?.isWhole(head, reply.raw)) return () => {}
    const target = head.indexOf(' ') + 1
    const entry = accessEntryOf(raw)
    const logged = { peer, ...(entry && { requestId: entry.id }), method: 'GET', path: pathOf(url) }
    return known.expect(reply, {
      ...poll,
      before: head.slice(0, target + cursor.start),
      after: head.slice(target + cursor.end),
      beginEntry: next => entry?.again(url.slice(0, cursor.start) + next + url.slice(cursor.end)),
      answered: (status, ms, id) =>
        logRequest(this.#log, id === undefined ? logged : { ...logged, requestId: id }, status, ms),
    })
  }
}

/** Whether a request is HTTP/1.1, without a body, and keeps its connection open. */
function isPlain({ method, httpVersion, headers }: IncomingMessage): boolean {
  if (method !== 'GET' || httpVersion !== '1.1') return false
  if (headers.connection !== undefined && headers.connection.toLowerCase() !== 'keep-alive') return false
  return !('content-length' in headers || 'transfer-encoding' in headers || 'upgrade' in headers || 'expect' in headers)
}

/** The head of a request as clients write it; one that was written otherwise does not equal it. */
function headOf({ method, url, rawHeaders }: IncomingMessage): string {
  let head = `${method} ${url} HTTP/1.1\r\n`
  for (let i = 0; i < rawHeaders.length; i += 2) head += `${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`
  return `${head}\r\n`
}

type DataListener = (chunk: Buffer) => void

interface ExpectedPoll extends RepeatedPoll {
  /** Its head before and after the cursor. */
  readonly before: string
  readonly after: string
  /** Header lines of every response, each with its line end. */
  readonly headers: string
  /** The entry of a repetition in the access log; `undefined` without one. */
  beginEntry(cursor: string): AccessEntry | undefined
  /** @param id of the request, with an access log */
  answered(status: number, ms: number, id: string | undefined): void
}

/** One connection whose client polls. It reads before the parser, and passes on everything that is not the expected poll. */
class PollConnection {
  readonly #socket: Socket
  readonly #unread: UnreadResponses
  readonly #parsers: readonly DataListener[]
  /** The last read that went to the parser, if it may be a whole head; and the newest response at that time. */
  #parsed: { readonly chunk: Buffer; readonly newest: ServerResponse | undefined } | undefined
  #expected: ExpectedPoll | undefined
  /** The cursor that the expected poll has. */
  #cursor: string | undefined
  /** The response to a repeated poll, while it is not complete. */
  #writer: ConnectionWriter | undefined
  /** Its entry in the access log; `undefined` without one. */
  #entry: AccessEntry | undefined
  /** Reads since then. */
  readonly #held: Buffer[] = []

  constructor(socket: Socket, unread: UnreadResponses) {
    this.#socket = socket
    this.#unread = unread
    this.#parsers = socket.listeners('data') as DataListener[]
    socket.on('data', this.#read)
    for (const parse of this.#parsers) socket.off('data', parse)
    socket.once('close', () => {
      this.#writer?.closed()
      this.#entry?.complete(0)
    })
  }

  /** Whether the last read was this head and nothing else, and is the request of this response. */
  isWhole(head: string, response: ServerResponse): boolean {
    const parsed = this.#parsed
    // Bytes received during the authentication may be equal and belong to another request's body.
    if (!parsed || parsed.newest === response || newestResponse(this.#socket) !== response) return false
    return parsed.chunk.toString('latin1') === head
  }

  expect(reply: FastifyReply, poll: Omit<ExpectedPoll, 'headers'>): (cursor: string | undefined) => void {
    const silence = poll.timeout + keepAliveTimeout
    // Each response has a request id of its own.
    const kept = Object.entries(reply.getHeaders()).filter(([name]) => name !== 'x-request-id')
    const lines = kept.map(([name, value]) => `${name}: ${value}\r\n`)
    lines.push(`Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(silence / 1000)}\r\n`)
    const expected = { ...poll, headers: lines.join('') }
    this.#expected = expected
    this.#cursor = undefined
    reply.raw.once('finish', () => {
      // One second more than the header says, as Node has it: a poll at the last moment is not cut off.
      if (this.#expected === expected) this.#socket.setTimeout(silence + 1000)
    })
    return cursor => {
      if (this.#expected === expected) this.#cursor = cursor
    }
  }

  readonly #read = (chunk: Buffer): void => {
    if (this.#writer) {
      this.#held.push(chunk)
      this.#socket.pause()
    } else if (this.#expected && this.#isNext(chunk, this.#expected)) this.#answer(chunk, this.#expected)
    else this.#parse(chunk)
  }

  #isNext(chunk: Buffer, { before, after }: ExpectedPoll): boolean {
    const cursor = this.#cursor
    if (cursor === undefined || chunk.length !== before.length + cursor.length + after.length) return false
    if (!this.#socket.writable || newestResponse(this.#socket) !== undefined) return false
    return chunk.toString('latin1') === before + cursor + after
  }

  #answer(chunk: Buffer, expected: ExpectedPoll): void {
    const since = performance.now()
    const entry = expected.beginEntry(this.#cursor ?? '')
    const headers = entry ? `${expected.headers}X-Request-ID: ${entry.id}\r\n` : expected.headers
    const complete = (status: number, bytes: number): void => {
      this.#writer = undefined
      this.#entry = undefined
      entry?.complete(bytes, status)
      expected.answered(status, performance.now() - since, entry?.id)
      this.#releaseHeld()
    }
    const writer = new ConnectionWriter(this.#socket, headers, this.#unread, complete, expected.encoder)
    this.#entry = entry
    this.#writer = writer
    const answered = expected.answer(this.#cursor ?? '', writer)
    if (answered === false) this.#parseInstead(chunk)
    else if (answered !== true) answered.then(isAnswered => isAnswered || this.#parseInstead(chunk))
  }

  #parseInstead(chunk: Buffer): void {
    this.#writer = undefined
    this.#entry = undefined
    this.#parse(chunk)
    this.#releaseHeld()
  }

  #releaseHeld(): void {
    if (this.#held.length === 0) return
    this.#socket.resume()
    this.#read(Buffer.concat(this.#held.splice(0)))
  }

  #parse(chunk: Buffer): void {
    this.#expected = undefined
    // The parser of a closed connection may be another one's by now.
    if (this.#socket.destroyed) return
    this.#parsed = chunk.length <= maxHead ? { chunk, newest: newestResponse(this.#socket) } : undefined
    for (const parse of this.#parsers) parse.call(this.#socket, chunk)
  }
}

/** Writes the response to one repeated poll on its connection, without the objects of Node's HTTP server. */
export class ConnectionWriter implements PollWriter {
  readonly #socket: Socket
  readonly #headers: string
  readonly #unread: UnreadResponses
  readonly #complete: (status: number, bytes: number) => void
  readonly #encoder: BodyEncoder | undefined
  #body: ChunkedBody | undefined
  #gone: (() => void) | undefined

  /**
   * @param headers lines, each with its line end
   * @param unread bounds what a client leaves unread: Node's server does not know of this response
   * @param complete called when it is written and there is room for the next, with the bytes of its body
   * @param encoder compresses a whole response; left out for none
   */
  constructor(
    socket: Socket,
    headers: string,
    unread: UnreadResponses,
    complete: (status: number, bytes: number) => void,
    encoder?: BodyEncoder,
  ) {
    this.#socket = socket
    this.#headers = headers
    this.#unread = unread
    this.#complete = complete
    this.#encoder = encoder
  }

  get body(): Writable {
    return this.#body ?? this.#socket
  }

  begin(): void {
    this.#socket.write(this.#head(200, 'Transfer-Encoding: chunked\r\n'))
    this.#body = new ChunkedBody(this.#socket, bytes => this.#complete(200, bytes))
  }

  send(whole: WholeResponse): void {
    sendEncoded(whole, this.#encoder, encoded => this.#send(encoded))
  }

  #send({ status = 200, headers = {}, body }: WholeResponse): void {
    const socket = this.#socket
    // The client may have left while the body was compressed.
    if (socket.destroyed) return
    let more = ''
    for (const [name, value] of Object.entries(headers)) more += `${name}: ${value}\r\n`
    const bytes = Buffer.byteLength(body)
    const head = this.#head(status, `${more}content-length: ${bytes}\r\n`)
    if (typeof body === 'string') socket.write(head + body)
    else {
      socket.cork()
      socket.write(head)
      socket.write(body)
      socket.uncork()
    }
    if (!socket.writableNeedDrain) return this.#complete(status, bytes)
    this.#unread.add(socket)
    socket.once('drain', () => {
      this.#unread.delete(socket)
      this.#complete(status, bytes)
    })
  }

  onClose(gone: () => void): void {
    this.#gone = gone
  }

  /** The connection was closed before the response was complete. */
  closed(): void {
    this.#gone?.()
  }

  #head(status: number, more: string): string {
    const date = new Date().toUTCString()
    return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${this.#headers}${more}Date: ${date}\r\n\r\n`
  }
}

/** A chunked body (RFC 9112 §7.1). Destroying it closes the connection, so that nobody takes it for complete. */
class ChunkedBody extends Writable {
  readonly #socket: Socket
  readonly #complete: (bytes: number) => void
  #bytes = 0

  constructor(socket: Socket, complete: (bytes: number) => void) {
    super({ highWaterMark: socket.writableHighWaterMark })
    this.#socket = socket
    this.#complete = complete
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, written: () => void): void {
    // An empty chunk would end the body.
    if (chunk.length === 0) return written()
    this.#bytes += chunk.length
    const socket = this.#socket
    socket.cork()
    socket.write(`${chunk.length.toString(16)}\r\n`)
    socket.write(chunk)
    socket.write('\r\n')
    socket.uncork()
    whenWritable(socket, written)
  }

  override _final(done: () => void): void {
    this.#socket.write('0\r\n\r\n')
    done()
    // Node's server does not expect a request while the connection waits for 'drain'.
    whenWritable(this.#socket, () => this.#complete(this.#bytes))
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.writableFinished) this.#socket.destroy()
    done(error)
  }
}

function whenWritable(socket: Socket, then: () => void): void {
  if (socket.writableNeedDrain) socket.once('drain', then)
  else then()
}
