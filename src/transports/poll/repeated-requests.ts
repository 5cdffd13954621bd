import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Logger } from '../../base/log.js'
import { logRequest } from '../../http/access-line.js'
import { type CursorPosition, cursorIn, isPlainCursor } from '../../http/cursor-position.js'
import { newestAnswer } from '../../http/last-response.js'
import { pathOf } from '../../http/request-target.js'
import type { UnreadResponses } from '../../http/unread-responses.js'
import { type ConnectionAnswer, ConnectionWriter } from '../connection-writer.js'
import type { PollWriter } from './poll-writer.js'

/** A longer head is read anew each time, as each connection keeps its own; a browser's has some 700 bytes. */
const longestHead = 4096

/** For how long a connection may wait for its next request, in milliseconds, as Node's own limit is. */
const keepAlive = 5000

/** What becomes of a request that is asked again. */
export interface Repetition {
  /** For how long its answer may take, in milliseconds. */
  readonly timeout: number
  /** Up to how many characters it takes a cursor of lower case letters, digits and `-`. */
  readonly longestCursor: number
  /**
   * Answers it, with another cursor; or has written nothing and gives `false`: then it is read as any other request, which
   * says what is wrong.
   */
  ask(cursor: string, wire: PollWriter): boolean | Promise<boolean>
}

/**
 * Answers requests that say, byte for byte, what the one before on their connection has said, but for the cursor: without
 * parsing them, routing them, and making the objects of a request and its reply, which costs more than all that is done
 * for a poll besides. Of a long-poll to each of a thousand clients, that was more than half of the processor time.
 *
 * Whatever differs in any way, comes in pieces or together with something else, goes to Node's parser, which then takes up
 * where it was: between two requests. The first two requests of a connection always do: the first makes it known, and
 * of the second it is seen that it was a whole request and nothing else. So there is no place where two readers could
 * disagree on where a request ends (RFC 9112 §11.2).
 */
export class RepeatedRequests {
  readonly #log: Logger
  readonly #untaken: UnreadResponses
  readonly #connections = new WeakMap<Socket, Connection>()
  #date = ''
  #dateFrom = 0

  constructor({ log, untaken }: { readonly log: Logger; readonly untaken: UnreadResponses }) {
    this.#log = log
    this.#untaken = untaken
  }

  /**
   * Has the request that comes next answered by `repetition` where it is this one again. Call it before the answer.
   *
   * @param peer the address of who asks
   */
  expect(request: FastifyRequest, reply: FastifyReply, peer: string, repetition: Repetition): void {
    const { raw } = request
    if (!isPlain(raw)) return
    const head = headOf(raw)
    if (head.length > longestHead) return
    let connection = this.#connections.get(raw.socket)
    if (!connection) {
      connection = new Connection(raw.socket)
      this.#connections.set(raw.socket, connection)
    }
    const place = cursorIn(request.url, repetition.longestCursor)
    if (!place) return
    const line = { peer, method: 'GET', path: pathOf(request.url) }
    const told = (status: number, ms: number): void => logRequest(this.#log, line, status, ms)
    connection.expect(head, place, reply, { ...repetition, date: this.#now, told, untaken: this.#untaken })
  }

  /** The time as HTTP says it, which changes once in a second. */
  readonly #now = (): string => {
    const now = Date.now()
    if (now < this.#dateFrom || now >= this.#dateFrom + 1000) {
      this.#dateFrom = now - (now % 1000)
      this.#date = new Date(now).toUTCString()
    }
    return this.#date
  }
}

/** Whether a request is HTTP/1.1, without a body, and leaves its connection as it was. */
function isPlain({ method, httpVersion, headers }: IncomingMessage): boolean {
  if (method !== 'GET' || httpVersion !== '1.1') return false
  if (headers.connection !== undefined && headers.connection.toLowerCase() !== 'keep-alive') return false
  return !('content-length' in headers || 'transfer-encoding' in headers || 'upgrade' in headers || 'expect' in headers)
}

/** The head of a request as it is usually written; one that was written otherwise is not recognised. */
function headOf({ method, url, rawHeaders }: IncomingMessage): string {
  let head = `${method} ${url} HTTP/1.1\r\n`
  for (let i = 0; i < rawHeaders.length; i += 2) head += `${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`
  return `${head}\r\n`
}

type DataListener = (chunk: Buffer) => void

/** What is needed to answer it. */
interface Answering extends Repetition, Pick<ConnectionAnswer, 'date' | 'untaken'> {
  /** It has been answered, after so many milliseconds. */
  told(status: number, ms: number): void
}

/** What is expected to come again. */
interface Expected extends Answering {
  /** What comes before the cursor, and after it. */
  readonly before: string
  readonly after: string
  readonly wire: ConnectionWriter
}

/** One connection on which something may come again. It stands before the parser, and gives it what is not for itself. */
class Connection {
  readonly #socket: Socket
  readonly #parsers: readonly DataListener[]
  /** What the parser was given last, if it may be the whole of a request; and the answer to the newest one before it. */
  #parsed: { readonly chunk: Buffer; readonly before: ServerResponse | undefined } | undefined
  #expected: Expected | undefined
  /** Whether it has come again, and is yet to be answered. */
  #isAnswering = false
  /** What came meanwhile. */
  readonly #held: Buffer[] = []
  #since = 0

  constructor(socket: Socket) {
    this.#socket = socket
    this.#parsers = socket.listeners('data') as DataListener[]
    this.#stepIn()
    socket.once('close', () => {
      if (this.#isAnswering) this.#expected?.wire.closed()
    })
  }

  expect(head: string, { start, end }: CursorPosition, reply: FastifyReply, answering: Answering): void {
    const parsed = this.#parsed
    this.#parsed = undefined
    // Who asks may take long to find out. What has come since may look the same, and be the body of something else.
    if (!parsed || parsed.before === reply.raw || newestAnswer(this.#socket) !== reply.raw) return
    if (parsed.chunk.toString('latin1') !== head) return
    const target = head.indexOf(' ') + 1
    const silence = answering.timeout + keepAlive
    const lines = Object.entries(reply.getHeaders()).map(([name, value]) => `${name}: ${value}\r\n`)
    lines.push(`Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(silence / 1000)}\r\n`)
    const { date, untaken } = answering
    const [headers, answered] = [lines.join(''), this.#answered]
    const wire = new ConnectionWriter({ socket: this.#socket, headers, date, answered, untaken })
    const [before, after] = [head.slice(0, target + start), head.slice(target + end)]
    const expected: Expected = { ...answering, before, after, wire }
    this.#expected = expected
    reply.raw.once('finish', () => {
      // Later than is said, as Node does: what is asked at the last moment is not cut off.
      if (this.#expected === expected) this.#socket.setTimeout(silence + 1000)
    })
  }

  readonly #take = (chunk: Buffer): void => {
    if (this.#isAnswering) {
      this.#held.push(chunk)
      this.#socket.pause()
      return
    }
    // Not in front of an answer that is on its way.
    const isFree = this.#socket.writable && newestAnswer(this.#socket) === undefined
    const expected = isFree ? this.#expected : undefined
    const cursor = expected && cursorOf(chunk, expected)
    if (expected && cursor !== undefined) this.#ask(expected, cursor, chunk)
    else this.#parse(chunk)
  }

  #ask(expected: Expected, cursor: string, chunk: Buffer): void {
    this.#isAnswering = true
    this.#since = performance.now()
    const asked = expected.ask(cursor, expected.wire)
    if (asked === true) return
    if (asked === false) this.#askInFull(chunk)
    else asked.then(isAnswered => isAnswered || this.#askInFull(chunk))
  }

  #askInFull(chunk: Buffer): void {
    this.#isAnswering = false
    this.#parse(chunk)
    this.#release()
  }

  readonly #answered = (status: number): void => {
    this.#isAnswering = false
    this.#expected?.told(status, performance.now() - this.#since)
    this.#release()
  }

  #release(): void {
    if (this.#held.length === 0) return
    this.#socket.resume()
    this.#take(Buffer.concat(this.#held.splice(0)))
  }

  #parse(chunk: Buffer): void {
    this.#expected = undefined
    // By then, the parser may be another connection's.
    if (this.#socket.destroyed) return
    const before = newestAnswer(this.#socket)
    this.#parsed = chunk.length <= longestHead ? { chunk, before } : undefined
    this.#stepOut()
    for (const parse of this.#parsers) parse.call(this.#socket, chunk)
    // What has been upgraded, or taken over, is nobody's else from now on.
    const listening = this.#socket.listeners('data')
    if (this.#parsers.every(parse => listening.includes(parse))) this.#stepIn()
  }

  #stepIn(): void {
    this.#socket.on('data', this.#take)
    for (const parse of this.#parsers) this.#socket.off('data', parse)
  }

  #stepOut(): void {
    for (const parse of this.#parsers) this.#socket.on('data', parse)
    this.#socket.off('data', this.#take)
  }
}

/** The cursor of what was expected; `undefined` where it is something else. */
function cursorOf(chunk: Buffer, { before, after, longestCursor }: Expected): string | undefined {
  const length = chunk.length - before.length - after.length
  if (length < 1 || length > longestCursor) return undefined
  const text = chunk.toString('latin1')
  if (!text.startsWith(before) || !text.endsWith(after)) return undefined
  const cursor = text.slice(before.length, before.length + length)
  return isPlainCursor(cursor) ? cursor : undefined
}
