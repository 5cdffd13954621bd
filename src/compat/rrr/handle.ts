import type { Writable } from 'node:stream'
import type { RrrConfig } from '../../config/compat.js'
import { type Event, formatId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { StateCollection } from '../../storage/shared-state.js'
import type { BatchedScan, Scanner } from './batched-scan.js'
import { type Claim, HandlePosition } from './handle-position.js'
import type { RecentPosition } from './recent-position.js'

/** Events beyond which a scan counts as long. */
const longScan = 4096

/** Minimum time between two requests that are replaced at once, in milliseconds. */
const minReplaceInterval = 1000

export interface HandleContext {
  readonly journal: Journal
  readonly config: Pick<RrrConfig, 'maxQueued' | 'maxAge'>
  /** Finds the position at which a new handle begins. */
  readonly recent: RecentPosition
  /** Two queues: short scans do not wait for long ones. */
  readonly short: BatchedScan
  readonly long: BatchedScan
  /** Positions, which several gateways share. */
  readonly handles: StateCollection
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** A response that is being written. */
interface Sending {
  readonly request: string
  readonly sequence: number
  readonly response: Pick<Writable, 'once' | 'destroy'>
}

/**
 * The messages that wait for one handle: the position up to which the journal has been scanned, and the sequences of its
 * undelivered messages. The messages themselves are only in the journal.
 */
export class Handle implements Scanner {
  readonly name: string
  readonly topic: string
  openRequests = 0
  /** The request that gets the next message. */
  request: { replace(): void } | undefined
  /** When the last request ended, in milliseconds since 1970. */
  usedAt = 0
  /** The user or address of the last request. */
  account = ''
  readonly #context: HandleContext
  readonly #shared: HandlePosition
  /** Resolves when all gateways know whether the last response was written. */
  #settled: Promise<void> = Promise.resolve()
  /** All messages up to this sequence were delivered, as far as this gateway knows. */
  #delivered = 0
  /** `undefined` until the first scan. */
  #position: number | undefined
  /** Sequences of undelivered messages, in order. */
  #waiting: number[] = []
  #scanning: Promise<void> | undefined
  #sending: Sending | undefined
  #replacedAt = Number.NEGATIVE_INFINITY

  constructor(context: HandleContext, name: string) {
    this.#context = context
    this.name = name
    this.topic = `push/${name}`
    const { handles, journal } = context
    this.#shared = new HandlePosition({ handles, name, journal })
  }

  /** The position up to which the journal has been scanned. */
  get position(): number {
    return this.#position ?? 0
  }

  get cursor(): string {
    const { epoch, head } = this.#context.journal
    // Another gateway may have delivered events that have not arrived here.
    return formatId(epoch, Math.min(this.position, head))
  }

  /**
   * Begins a request: messages before it go to no other one, at any gateway. Aborts a response that is still being written. Rejects while the
   * shared state is away.
   */
  async begin(request: string): Promise<void> {
    await this.#interrupt()
    await this.#settled
    this.#skipTo(await this.#shared.begin(request, this.account, this.#delivered))
  }

  /** Claims a message for a request, before it is sent. Rejects as `begin`. */
  async claim(request: string, sequence: number): Promise<Claim> {
    const claim = await this.#shared.claim(request, this.account, sequence)
    if (claim === 'delivered') this.#skipTo(sequence)
    return claim
  }

  /** Ends a claim whose message was not sent. */
  unclaim(request: string): void {
    this.#settle(request, false)
  }

  /** Ends a request without a message. */
  end(request: string): void {
    const [oldest] = this.#waiting
    const position = oldest === undefined ? this.#position : oldest - 1
    // Without it, another gateway reads more of the journal.
    if (position !== undefined) this.#shared.advance(request, this.account, position).catch(ignore)
  }

  /**
   * The oldest waiting message; `undefined` if there is none but those after `cursor`, which the hub delivers. Rejects as
   * `Journal.read`.
   *
   * @param isLive whether the hub may deliver messages after `cursor`; else the journal is scanned to its end
   */
  async next(isLive = true): Promise<Event | undefined> {
    if (isLive && this.#isUpToDate()) return undefined
    this.#scanning ??= this.#scan().finally(() => {
      this.#scanning = undefined
    })
    await this.#scanning
    for (;;) {
      const [sequence] = this.#waiting
      if (sequence === undefined) return undefined
      const query = { filters: [this.topic], after: sequence - 1, through: sequence, limit: 1, maxBytes: 1 }
      const [event] = (await this.#context.journal.read(query)).events
      if (event && event.sequence === sequence && this.#isFresh(event)) return event
      if (this.#waiting[0] === sequence) this.#waiting.shift()
    }
  }

  /**
   * Notes that a request has replaced another.
   *
   * @returns milliseconds by which to delay the other's response: two pages with one handle would replace each other
   *   without a pause, as each asks again at once
   */
  replaced(): number {
    const now = performance.now()
    const wait = Math.max(0, this.#replacedAt + minReplaceInterval - now)
    if (wait === 0) this.#replacedAt = now
    return wait
  }

  /** No undelivered message is at or before this sequence, except those in `#waiting`. */
  advance(sequence: number): void {
    this.#position = Math.max(this.#position ?? 0, sequence)
  }

  /** Removes a claimed message once its response is written; if the connection closes before that, the message stays. */
  startSending(request: string, sequence: number, response: Sending['response']): void {
    const sending: Sending = { request, sequence, response }
    this.#sending = sending
    const settled = (isWritten: boolean): void => {
      if (this.#sending !== sending) return
      this.#sending = undefined
      if (isWritten) this.#skipTo(sequence)
      this.#settle(request, isWritten)
    }
    response.once('finish', () => settled(true))
    response.once('close', () => settled(false))
  }

  /** Aborts a response that is still being written, because the next request has arrived. */
  async #interrupt(): Promise<void> {
    if (!this.#sending) return
    // It may be complete before its event arrives.
    await new Promise(setImmediate)
    if (!this.#sending) return
    const { request, response } = this.#sending
    this.#sending = undefined
    response.destroy()
    this.#settle(request, false)
  }

  #settle(request: string, isWritten: boolean): void {
    // If the state is away, another gateway regards the message as undelivered after a while.
    const settled = this.#shared.settle(request, this.account, isWritten).catch(ignore)
    this.#settled = Promise.all([this.#settled, settled]).then(ignore)
  }

  /** No message up to this sequence is undelivered. */
  #skipTo(sequence: number): void {
    this.#delivered = Math.max(this.#delivered, sequence)
    this.#waiting = this.#waiting.filter(other => other > sequence)
    if (this.#position !== undefined) this.advance(sequence)
  }

  found(event: Event): void {
    const { sequence } = event
    // Known from a scan that failed.
    if (sequence <= (this.#waiting.at(-1) ?? 0)) return
    if (sequence <= this.position || !this.#isFresh(event)) return
    this.#waiting.push(sequence)
    if (this.#waiting.length > this.#context.config.maxQueued) this.#waiting.shift()
  }

  /** Whether all messages since the last request are within `maxQueued` and `maxAge`: true for a client that asks again at once. */
  #isUpToDate(): boolean {
    const { journal, config, now } = this.#context
    if (this.#waiting.length > 0 || this.#position === undefined || this.#scanning) return false
    return now() - this.usedAt < config.maxAge && journal.head - this.#position <= config.maxQueued
  }

  /** Scans the events since the last scan. */
  async #scan(): Promise<void> {
    const { journal, recent, short, long } = this.#context
    this.#position ??= Math.max(await recent(), this.#delivered)
    const distance = journal.head - this.#position
    if (distance > 0) await (distance > longScan ? long : short).join(this)
  }

  #isFresh({ time }: Event): boolean {
    return time >= this.#context.now() - this.#context.config.maxAge
  }
}

function ignore(): void {}
