import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex, Writable } from 'node:stream'
import { compileAddresses, normalizeAddress, unixAddress } from '../access/addresses.js'
import type { ClientResolver } from '../access/client-address.js'
import type { AccessRecord, FormatAccess } from './access-format.js'
import type { HttpResponse } from './unread-responses.js'

type HttpRequest = IncomingMessage | Http2ServerRequest

/** The entry of a request in the access log. */
const entry = Symbol('entry of the access log')

declare module 'node:http' {
  interface IncomingMessage {
    [entry]?: AccessEntry | undefined
  }
}

declare module 'node:http2' {
  interface Http2ServerRequest {
    [entry]?: AccessEntry | undefined
  }
}

export interface AccessLogOptions {
  readonly format: FormatAccess
  readonly file: { write(line: string): void }
  readonly resolveClient: ClientResolver
  /** Proxies whose `X-Request-ID` is taken. */
  readonly trustedProxies: readonly string[]
}

/** An `X-Request-ID` that is taken: characters without a meaning in logs and headers. */
const requestIdForm = /^[\w.:+/=@-]{1,128}$/

/** The status of a request whose client left before the response, as nginx has it. */
const clientLeft = 499

/** Writes one line for each request when its response has ended: an event stream, a tunnel and a plain WebSocket when they are closed. */
export class AccessLog {
  readonly #options: AccessLogOptions
  #trusts: (address: string) => boolean

  /** @throws {TypeError} naming the first invalid entry of `trustedProxies` */
  constructor(options: AccessLogOptions) {
    this.#options = options
    this.#trusts = compileAddresses(options.trustedProxies)
  }

  /** @throws {TypeError} naming the first invalid entry of `trustedProxies` */
  configure({ trustedProxies }: Pick<AccessLogOptions, 'trustedProxies'>): void {
    this.#trusts = compileAddresses(trustedProxies)
  }

  /** Follows a request and its response, which gets `X-Request-ID`. To be called before anything is written. */
  begin(request: HttpRequest, response: HttpResponse): void {
    const own = this.#entryOf(request)
    request[entry] = own
    response.setHeader('X-Request-ID', own.id)
    // Http2ServerResponse writes to its stream, and so do event streams.
    own.count('stream' in response ? response.stream : response)
    const end = (): void => {
      const status = response.headersSent ? response.statusCode : clientLeft
      if (!own.isDetached) this.#end(own, own.hasBody(status) ? own.bytes : 0, status)
    }
    response.once('finish', end)
    response.once('close', end)
  }

  /** Follows a WebSocket handshake until its connection is closed. @returns its entry, which gets the status of a refusal */
  beginUpgrade(request: IncomingMessage, socket: Duplex): AccessEntry {
    const own = this.#entryOf(request)
    const { socket: connection } = request
    const before = connection.bytesWritten
    socket.once('close', () => {
      const bytes = connection.bytesWritten - before
      this.#end(own, bytes, own.status ?? (bytes > 0 ? 101 : clientLeft))
    })
    return own
  }

  /** Adds the line of bytes that were no request, and were answered with a status. */
  malformed({ remoteAddress }: Pick<Socket, 'remoteAddress'>, status: number): void {
    const peer = remoteAddress === undefined ? unixAddress : normalizeAddress(remoteAddress)
    const none = { user: undefined, method: undefined, host: undefined, referer: undefined, userAgent: undefined }
    this.write({
      ...{ ...none, id: randomUUID(), peer, time: new Date(), target: '', protocol: '', secure: false, status },
      ...{ bytes: 0, duration: 0 },
    })
  }

  write(record: AccessRecord): void {
    const { format, file } = this.#options
    file.write(format(record))
  }

  /** The id that a trusted proxy has given to a request; `undefined` for none. */
  #givenIdOf({ headers, socket: { remoteAddress } }: HttpRequest): string | undefined {
    const given = headers['x-request-id']
    if (typeof given !== 'string' || !requestIdForm.test(given)) return undefined
    const peer = remoteAddress === undefined ? unixAddress : normalizeAddress(remoteAddress)
    return this.#trusts(peer) ? given : undefined
  }

  #entryOf(request: HttpRequest): AccessEntry {
    const { resolveClient } = this.#options
    const { address: peer, host, secure } = resolveClient(request)
    const { method = '', url: target = '', httpVersion, headers } = request
    const fixed = {
      ...{ peer, host, secure, method, target, protocol: `HTTP/${httpVersion}` },
      ...{ referer: headers.referer, userAgent: headers['user-agent'] },
    }
    return new AccessEntry(fixed, this.#givenIdOf(request), (...ended) => this.#end(...ended))
  }

  #end(own: AccessEntry, bytes: number, status: number): void {
    const record = own.end(bytes, status)
    if (record) this.write(record)
  }
}

/** The fields of a request that are known when it arrives. */
type Fixed = Omit<AccessRecord, 'id' | 'user' | 'time' | 'status' | 'bytes' | 'duration'>

type End = (own: AccessEntry, bytes: number, status: number) => void

/** One request, while it is not in the log yet. */
export class AccessEntry {
  readonly id: string
  readonly #fixed: Fixed
  readonly #givenId: string | undefined
  readonly #end: End
  readonly #time = new Date()
  readonly #since = performance.now()
  #isEnded = false
  /** The user that the request was identified as. */
  user: string | undefined
  /** Of a WebSocket handshake that was refused. */
  status: number | undefined
  /** Of the body, so far. */
  bytes = 0
  /** Whether the response ends with its connection, and not with Node's `finish`. */
  isDetached = false

  constructor(fixed: Fixed, givenId: string | undefined, end: End) {
    this.id = givenId ?? randomUUID()
    this.#fixed = fixed
    this.#givenId = givenId
    this.#end = end
  }

  /** The entry of a request that equals this one but for its target, and comes now. */
  again(target: string): AccessEntry {
    const next = new AccessEntry({ ...this.#fixed, target }, this.#givenId, this.#end)
    next.user = this.user
    return next
  }

  /** Whether a response with this status has a body (RFC 9110 §6.4.1). */
  hasBody(status: number): boolean {
    return this.#fixed.method !== 'HEAD' && status !== 204 && status !== 304
  }

  /** Counts the bytes that are written to a response. */
  count(response: Writable): void {
    const { write, end } = response
    const add = (chunk: unknown): void => {
      if (typeof chunk === 'string') this.bytes += Buffer.byteLength(chunk)
      else if (chunk instanceof Uint8Array) this.bytes += chunk.length
    }
    response.write = (...args: unknown[]) => {
      add(args[0])
      return Reflect.apply(write, response, args)
    }
    response.end = (...args: unknown[]) => {
      add(args[0])
      return Reflect.apply(end, response, args)
    }
  }

  /**
   * Ends the entry with the connection, to which its response is written directly from now on.
   *
   * @param headLength bytes of the head, which will be written next
   */
  detach(socket: Socket, headLength: number): void {
    this.isDetached = true
    const before = socket.bytesWritten + headLength
    socket.once('close', () => this.#end(this, Math.max(0, socket.bytesWritten - before), 200))
  }

  /** Ends the entry of a response that Node's server did not send. @param status default: the client left before it */
  complete(bytes: number, status = clientLeft): void {
    this.#end(this, bytes, status)
  }

  /** The record; `undefined` if it has ended before. */
  end(bytes: number, status: number): AccessRecord | undefined {
    if (this.#isEnded) return undefined
    this.#isEnded = true
    const duration = performance.now() - this.#since
    return { ...this.#fixed, id: this.id, user: this.user, time: this.#time, status, bytes, duration }
  }
}

/** The entry of a request; `undefined` without an access log. */
export function accessEntryOf(request: HttpRequest): AccessEntry | undefined {
  return request[entry]
}
