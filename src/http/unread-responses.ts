import type { ServerResponse } from 'node:http'
import { constants, type Http2ServerResponse } from 'node:http2'
import { Socket } from 'node:net'
import { unixAddress } from '../access/addresses.js'
import { networkOf } from '../access/limits.js'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'

/** An answer of Node's server, of either version of HTTP. */
export type Answer = ServerResponse | Http2ServerResponse

/** What holds bytes of an answer; a connection where the answer was written to that itself. */
type Holder = Answer | Socket

/** How often it is looked at what waits, in milliseconds; and how much may wait by default, in bytes. */
const [interval, defaultMax] = [250, 64 * 1024 ** 2]

/** What bounds answers that are not taken. */
export interface UnreadResponsesOptions {
  readonly log: Logger
  readonly metrics: Metrics
  /** Bytes of complete answers that their clients have not taken yet, together. Default: 64 MiB. */
  readonly max?: number
}

/**
 * Bounds what answers that are complete hold while their clients do not read. Whoever makes an answer is done with it by
 * then, and counts it no more; and one connection may have a hundred of them in streams of HTTP/2, or pipelined: twenty
 * connections came to 1 GB. It is looked at every 250 ms what waits; beyond the bound, those that have waited longest are
 * cut off, of the network that has most. Until then there may be more: who reads has the time to do so.
 */
export class UnreadResponses {
  readonly #options: UnreadResponsesOptions
  readonly #open = new Set<Holder>()
  /** Of those, the ones that are complete and wait for their clients; the longest wait first. */
  readonly #waiting = new Set<Holder>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: UnreadResponsesOptions) {
    this.#options = options
  }

  /** An answer will be made, or has been written to its connection, which has not taken all of it. */
  add(holder: Holder): void {
    this.#open.add(holder)
    if (holder instanceof Socket) this.#waiting.add(holder)
    this.#timer ??= setInterval(() => this.#look(), interval).unref()
  }

  /** It is over, or taken. What is destroyed need not be deleted: it is found so. */
  delete(holder: Holder): void {
    this.#open.delete(holder)
    this.#waiting.delete(holder)
  }

  #look(): void {
    let sum = 0
    for (const holder of this.#open) {
      // One that waited for others on its connection (pipelining) is not told of its end.
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

  /** Cuts off answers of the network that has most bytes waiting, the longest wait first, until it has less than others. */
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

/** The connection of an answer. */
function socketOf(holder: Holder): Socket {
  return holder instanceof Socket ? holder : holder.req.socket
}

/** What the bytes of an answer go over: of HTTP/2, its stream. */
function wireOf(holder: Holder): Socket | Http2ServerResponse['stream'] {
  if (holder instanceof Socket) return holder
  return 'stream' in holder ? holder.stream : holder.req.socket
}
