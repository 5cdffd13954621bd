import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { unixAddress } from '../access/addresses.js'
import { networkOf } from '../access/limits.js'
import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import { isInputIgnored } from '../http/ignore-input.js'
import { newestResponse } from '../http/last-response.js'

/** Bytes of the waiting requests of all connections. */
const maxWaitingBytes = 64 * 1024 ** 2

/** Bytes that the parser gets at a time: 18 requests at most; and within a body. */
const [sliceBytes, bodySliceBytes] = [512, 4096]

/** Unparsed bytes of one connection before it is paused. Until then, the gateway notices when the client leaves. */
const maxUnparsedBytes = 16 * 1024

/** Bytes of Node's objects for one request without a body, without URL and headers. */
const objectBytes = 4096

export interface PipelinedRequestsOptions {
  readonly log: Logger
  readonly metrics: Metrics
  /** Default: 64 MiB. */
  readonly maxBytes?: number
}

type DataListener = (chunk: Buffer) => void

/** A connection, with its unparsed bytes. */
interface Connection {
  readonly socket: Socket
  readonly parse: DataListener
  readonly rest: Buffer[]
  /** Requests that wait for earlier responses. */
  waiting: number
  /** Bytes of those in the quota. */
  bytes: number
  /** Whether its bytes no longer go to the parser. */
  isReleased: boolean
}

/**
 * Handles pipelined requests of HTTP/1.1 (RFC 9112 §9.3.2) one after the other: each when it is its response's turn. Until then it has opened no file,
 * has no subscription, and holds nothing that would have to be released when the connection closes.
 *
 * Node parses all of a read, up to 2400 requests. So its parser gets 512 bytes at a time, and none while a request waits; beyond 16 KiB the connection
 * is paused (backpressure). Waiting requests of all connections may take 64 MiB, shared fairly by network; a connection beyond is destroyed.
 */
export class PipelinedRequests {
  readonly #options: PipelinedRequestsOptions
  readonly #quota: FairQuota
  /** The connection that is being parsed. */
  #parsing: Connection | undefined

  constructor(options: PipelinedRequestsOptions) {
    this.#options = options
    this.#quota = new FairQuota(options.maxBytes ?? maxWaitingBytes)
  }

  /** Reads a new connection in place of its parser. To be called when Node's HTTP/1.1 server has the connection. */
  read(socket: Socket): void {
    const [parse] = socket.listeners('data')
    if (parse === undefined) return
    const connection = { socket, parse: parse as DataListener, rest: [], waiting: 0, bytes: 0, isReleased: false }
    socket.on('data', chunk => this.#take(connection, chunk))
    socket.off('data', connection.parse)
  }

  /**
   * Stops reading a connection that is upgraded. To be called in the `upgrade` event, before anything listens to its bytes.
   *
   * @param head the bytes after the request that the parser has had
   * @returns all bytes after the request
   */
  release(socket: Socket, head: Buffer): Buffer {
    // The listeners are this one, or that of RepeatedPolls.
    socket.removeAllListeners('data')
    const connection = this.#parsing
    if (connection?.socket !== socket) return head
    connection.isReleased = true
    return connection.rest.length === 0 ? head : Buffer.concat([head, ...connection.rest.splice(0)])
  }

  /** Calls `handle` when it is the response's turn: at once without an earlier one. Never if the connection closes before. */
  handle(request: IncomingMessage, response: ServerResponse, handle: () => void): void {
    const connection = this.#parsing
    if (response.socket !== null || connection === undefined) return handle()
    const { socket } = request
    // Node parses the rest of a read although the connection is destroyed.
    if (socket.destroyed) return
    const [key, bytes] = [keyOf(socket), bytesOf(request)]
    if (this.#quota.exceededBy(key, bytes) !== undefined) return this.#refuse(socket)
    this.#quota.take(key, bytes)
    if (connection.bytes === 0) socket.once('close', () => this.#quota.giveBack(key, connection.bytes))
    connection.bytes += bytes
    connection.waiting += 1
    response.once('socket', () => {
      connection.waiting -= 1
      // Node is still assigning the connection to the response.
      process.nextTick(() => {
        if (!socket.writable) return
        handle()
        if (connection.waiting === 0) this.#resume(connection)
      })
    })
  }

  #take(connection: Connection, chunk: Buffer): void {
    connection.rest.push(chunk)
    this.#parse(connection)
  }

  #parse(connection: Connection): void {
    const { socket, rest, parse } = connection
    const outer = this.#parsing
    this.#parsing = connection
    for (;;) {
      const chunk = rest.shift()
      // After a takeover or an error, the parser may be another connection's.
      if (chunk === undefined || socket.destroyed || isInputIgnored(socket)) break
      if (connection.waiting > 0) {
        rest.unshift(chunk)
        if (rest.reduce((sum, { length }) => sum + length, 0) > maxUnparsedBytes) socket.pause()
        break
      }
      const size = newestResponse(socket)?.req.complete === false ? bodySliceBytes : sliceBytes
      if (chunk.length > size) rest.unshift(chunk.subarray(size))
      parse.call(socket, chunk.length > size ? chunk.subarray(0, size) : chunk)
      if (connection.isReleased) break
    }
    this.#parsing = outer
  }

  #resume(connection: Connection): void {
    const { socket, rest, bytes } = connection
    this.#quota.giveBack(keyOf(socket), bytes)
    connection.bytes = 0
    if (rest.length === 0 || isInputIgnored(socket)) return
    socket.resume()
    this.#parse(connection)
  }

  #refuse(socket: Socket): void {
    const { reason, level, text } = new GatewayError('too-many-pipelined')
    this.#options.metrics.refused(reason)
    this.#options.log[level]({ peer: socket.remoteAddress, reason }, text)
    socket.destroy()
  }
}

function keyOf({ remoteAddress }: Socket): string {
  return remoteAddress === undefined ? unixAddress : networkOf(remoteAddress)
}

function bytesOf({ url = '', rawHeaders }: IncomingMessage): number {
  let bytes = objectBytes + url.length
  for (const text of rawHeaders) bytes += text.length
  return bytes
}
