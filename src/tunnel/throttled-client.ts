import { TokenBucket } from '../access/rate-limits.js'
import type { GatewayError } from '../base/errors.js'
import type { Transport } from '../base/metrics.js'
import type { Client, ClientListener } from './client.js'

/** From the client, or to it. */
export type Direction = 'in' | 'out'

export interface ThrottleOptions {
  /** The average of each direction, and its burst. */
  readonly bytesPerSecond: number
  /** Called at the start of each pause of a direction. */
  onPause(direction: Direction, seconds: number): void
  readonly now?: () => number
}

/**
 * Limits the bytes per second from and to a client. Bytes pass at once, and are followed by a pause that makes up for them, so that nothing
 * is buffered here.
 *
 * A wrapper, so that tunnels without a limit have no overhead.
 */
export class ThrottledClient implements Client, ClientListener {
  /** Absent if the client has none. */
  readonly ping?: () => void
  readonly #client: Client
  readonly #in: ThrottledDirection
  readonly #out: ThrottledDirection
  #listener: ClientListener | undefined

  constructor(client: Client, options: ThrottleOptions) {
    this.#client = client
    this.#in = new ThrottledDirection('in', options, () => this.#client.resume())
    this.#out = new ThrottledDirection('out', options, () => this.#listener?.clientDrained())
    if (client.ping) this.ping = () => client.ping?.()
  }

  get transport(): Transport {
    return this.#client.transport
  }

  get bufferedBytes(): number {
    return this.#client.bufferedBytes
  }

  get paused(): boolean {
    return this.#client.paused
  }

  get activity(): number {
    return this.#client.activity ?? 0
  }

  start(listener: ClientListener): void {
    this.#listener = listener
    this.#client.start(this)
  }

  write(bytes: Buffer): boolean {
    if (!this.#client.write(bytes)) this.#out.blocked = true
    this.#out.count(bytes.length)
    return this.#out.open
  }

  pause(): void {
    this.#in.blocked = true
    this.#client.pause()
  }

  resume(): void {
    this.#in.blocked = false
    if (this.#in.open) this.#client.resume()
  }

  finish(reason: GatewayError): void {
    this.#release()
    this.#client.finish(reason)
  }

  destroy(): void {
    this.#release()
    this.#client.destroy()
  }

  clientSent(bytes: Buffer): boolean {
    this.#in.count(bytes.length)
    if (!this.#in.open) this.#client.pause()
    return this.#listener?.clientSent(bytes) === true
  }

  /** A pong is no longer than its ping: limiting the reads limits the pongs. */
  clientSentOther(bytes: number): void {
    this.#in.count(bytes)
    if (!this.#in.open) this.#client.pause()
  }

  clientDrained(): void {
    this.#out.blocked = false
    if (this.#out.open) this.#listener?.clientDrained()
  }

  clientEnded(reason: GatewayError): void {
    this.#listener?.clientEnded(reason)
  }

  clientClosed(): void {
    this.#release()
    this.#listener?.clientClosed()
  }

  /** Ends both limits, for good. */
  #release(): void {
    this.#in.release()
    this.#out.release()
  }
}

/** One direction: open unless it pauses, or its receiver cannot take more. */
class ThrottledDirection {
  /** Whether the receiver cannot take more. */
  blocked = false
  readonly #direction: Direction
  readonly #options: ThrottleOptions
  readonly #bucket: TokenBucket
  readonly #reopen: () => void
  #timer: NodeJS.Timeout | undefined
  #released = false

  /** @param reopen called when a pause ends and the receiver can take more */
  constructor(direction: Direction, options: ThrottleOptions, reopen: () => void) {
    this.#direction = direction
    this.#options = options
    this.#bucket = new TokenBucket({ perSecond: options.bytesPerSecond, burst: options.bytesPerSecond }, options.now)
    this.#reopen = reopen
  }

  get open(): boolean {
    return !this.blocked && this.#timer === undefined
  }

  count(bytes: number): void {
    if (this.#released) return
    const wait = this.#bucket.spend(bytes)
    // Bytes that arrive during a pause count for the next one.
    if (wait > 0 && this.#timer === undefined) this.#pause(wait)
  }

  /** Ends the limit, for good. */
  release(): void {
    if (this.#released) return
    this.#released = true
    if (this.#timer !== undefined) this.#end()
  }

  #pause(wait: number): void {
    this.#options.onPause(this.#direction, wait / 1000)
    this.#timer = setTimeout(() => this.#end(), Math.ceil(wait))
  }

  #end(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const wait = this.#released ? 0 : this.#bucket.spend(0)
    if (wait > 0) this.#pause(wait)
    else if (this.open) this.#reopen()
  }
}
