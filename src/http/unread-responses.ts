import type { ServerResponse } from 'node:http'
import { constants, type Http2ServerResponse } from 'node:http2'
import { Socket } from 'node:net'
import { unixAddress } from '../access/addresses.js'
import { networkOf } from '../access/limits.js'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'

/** A response of Node's server, of either version of HTTP. */
export type HttpResponse = ServerResponse | Http2ServerResponse

/** A response, or a connection to which one was written directly. */
type Holder = HttpResponse | Socket

/** Milliseconds between two checks, and the default bound in bytes. */
const [interval, defaultMax] = [250, 64 * 1024 ** 2]

export interface UnreadResponsesOptions {
  readonly log: Logger
  readonly metrics: Metrics
  /** Unread bytes of all complete responses. Default: 64 MiB. */
  readonly max?: number
}

/**
 * Bounds the bytes of complete responses that clients do not read. Such responses count nowhere else, and one connection may have a hundred: in
 * streams of HTTP/2, or pipelined. Checked every 250 ms; beyond the bound, the oldest responses of the network with the most bytes are destroyed.
 */
export class UnreadResponses {
  readonly #options: UnreadResponsesOptions
  readonly #open = new Set<Holder>()
  /** Those that are complete and unread, oldest first. */
  readonly #waiting = new Set<Holder>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: UnreadResponsesOptions) {
    this.#options = options
  }

  /** Watches a response from its request on, or a connection with unread bytes. */
  add(holder: Holder): void {
    this.#open.add(holder)
    if (holder instanceof Socket) this.#waiting.add(holder)
    this.#timer ??= setInterval(() => this.#check(), interval).unref()
  }

  /** To be called when it is closed or read; destroyed ones are found by the check. */
  delete(holder: Holder): void {
    this.#open.delete(holder)
    this.#waiting.delete(holder)
  }

  #check(): void {
    let sum = 0
    for (const holder of this.#open) {
      // A pipelined response that waited for others emits no 'close'.
      if (wireOf(holder).destroyed) this.delete(holder)
      else if (holder.writableLength > 0 && isComplete(holder)) {
        this.#waiting.add(holder)
        sum += holder.writableLength
      }
    }
    const { max = defaultMax } = this.#options
    if (sum > max) this.#cutOffSome(sum - max)
    if (this.#open.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Destroys responses of the network with the most unread bytes, oldest first, until another network has more. */
  #cutOffSome(excess: number): void {
    const networks = new Map<string, { bytes: number; readonly holders: Holder[] }>()
    for (const holder of this.#waiting) {
      const name = networkOf(socketOf(holder).remoteAddress ?? unixAddress)
      const network = networks.get(name) ?? { bytes: 0, holders: [] }
      networks.set(name, network)
      network.bytes += holder.writableLength
      network.holders.push(holder)
    }
    for (let left = excess; left > 0; ) {
      const most = [...networks.values()].reduce((a, b) => (b.bytes > a.bytes ? b : a))
      const holder = most.holders.shift()
      if (!holder) return
      most.bytes -= holder.writableLength
      left -= holder.writableLength
      this.#cutOff(holder)
    }
  }

  #cutOff(holder: Holder): void {
    const { log, metrics } = this.#options
    const { reason, level, text } = new GatewayError('client-too-slow')
    const { remoteAddress: peer } = socketOf(holder)
    metrics.ended(reason)
    log[level]({ peer, reason, bytes: holder.writableLength }, text)
    if ('stream' in holder) holder.stream.close(constants.NGHTTP2_CANCEL)
    else wireOf(holder).destroy()
  }
}

function isComplete(holder: Holder): boolean {
  return holder instanceof Socket || holder.writableEnded
}

function socketOf(holder: Holder): Socket {
  return holder instanceof Socket ? holder : holder.req.socket
}

/** The stream of a response: of HTTP/2, or its connection. */
function wireOf(holder: Holder): Socket | Http2ServerResponse['stream'] {
  if (holder instanceof Socket) return holder
  return 'stream' in holder ? holder.stream : holder.req.socket
}
