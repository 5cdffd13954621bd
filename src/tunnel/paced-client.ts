import { TokenBucket } from '../access/rate-limits.js'
import type { GatewayError } from '../base/errors.js'
import type { Transport } from '../base/metrics.js'
import type { Client, ClientListener } from './client.js'

/** The way that bytes go: from the client, or to it. */
export type Direction = 'in' | 'out'

export interface Pace {
  /** On average, each way; as many may pass at once. */
  readonly bytesPerSecond: number
  /** Told for how many seconds one direction stands still, each time that it does. */
  onPause(direction: Direction, seconds: number): void
  readonly now?: () => number
}

/**
 * A client that is read, and written to, at most at a pace. What came has come: it is passed on, and followed by a pause
 * that makes up for it, so that nothing is held here.
 *
 * It stands around another client, so that a tunnel without a pace pays nothing for there being one.
 */
export class PacedClient implements Client, ClientListener {
  /** Absent where the client has none, as the tunnel looks for it. */
  readonly ping?: () => void
  readonly #client: Client
  readonly #in: Way
  readonly #out: Way
  #tunnel: ClientListener | undefined

  constructor(client: Client, pace: Pace) {
    this.#client = client
    this.#in = new Way('in', pace, () => this.#client.resume())
    this.#out = new Way('out', pace, () => this.#tunnel?.clientDrained())
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

  get signsOfLife(): number {
    return this.#client.signsOfLife ?? 0
  }

  start(tunnel: ClientListener): void {
    this.#tunnel = tunnel
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

  finish(ending: GatewayError): void {
    this.#release()
    this.#client.finish(ending)
  }

  destroy(): void {
    this.#release()
    this.#client.destroy()
  }

  clientSent(bytes: Buffer): void {
    this.#in.count(bytes.length)
    if (!this.#in.open) this.#client.pause()
    this.#tunnel?.clientSent(bytes)
  }

  /** An answer, such as a pong, is no longer than what it answers: what is read at a pace is answered at that pace. */
  clientSentOther(bytes: number): void {
    this.#in.count(bytes)
    if (!this.#in.open) this.#client.pause()
  }

  clientDrained(): void {
    this.#out.blocked = false
    if (this.#out.open) this.#tunnel?.clientDrained()
  }

  clientEnded(ending: GatewayError): void {
    this.#tunnel?.clientEnded(ending)
  }

  clientClosed(): void {
    this.#release()
    this.#tunnel?.clientClosed()
  }

  /** From here on it is only about the end. */
  #release(): void {
    this.#in.release()
    this.#out.release()
  }
}

/** One direction: open unless it pauses, or the side that the bytes go to has no room. */
class Way {
  /** The other side has no room. */
  blocked = false
  readonly #direction: Direction
  readonly #pace: Pace
  readonly #bucket: TokenBucket
  readonly #reopen: () => void
  #timer: NodeJS.Timeout | undefined
  #released = false

  /** @param reopen called when a pause is over and nothing else is in the way */
  constructor(direction: Direction, pace: Pace, reopen: () => void) {
    this.#direction = direction
    this.#pace = pace
    this.#bucket = new TokenBucket({ perSecond: pace.bytesPerSecond, burst: pace.bytesPerSecond }, pace.now)
    this.#reopen = reopen
  }

  get open(): boolean {
    return !this.blocked && this.#timer === undefined
  }

  count(bytes: number): void {
    if (this.#released) return
    const wait = this.#bucket.spend(bytes)
    // What one more read brought while the pause had begun is for the next pause.
    if (wait > 0 && this.#timer === undefined) this.#pause(wait)
  }

  /** Ends the pause, for good. */
  release(): void {
    if (this.#released) return
    this.#released = true
    if (this.#timer !== undefined) this.#end()
  }

  #pause(wait: number): void {
    this.#pace.onPause(this.#direction, wait / 1000)
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
