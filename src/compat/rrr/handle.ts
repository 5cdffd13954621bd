import type { Writable } from 'node:stream'
import type { RrrConfig } from '../../config/compat.js'
import { type Event, formatId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { BatchedScan, Scanner } from './batched-scan.js'
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
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** A response that is being written. */
interface Sending {
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
  }

  /** The position up to which the journal has been scanned. */
  get position(): number {
    return this.#position ?? 0
  }

  get cursor(): string {
    return formatId(this.#context.journal.epoch, this.position)
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

  /** Removes a message once its response is written; if the connection closes before that, the message stays. */
  startSending(sequence: number, response: Sending['response']): void {
    const sending: Sending = { sequence, response }
    this.#sending = sending
    const settled = (isWritten: boolean): void => {
      if (this.#sending !== sending) return
      this.#sending = undefined
      if (isWritten) this.#delivered(sequence)
    }
    response.once('finish', () => settled(true))
    response.once('close', () => settled(false))
  }

  /** Aborts a response that is still being written, because the next request has arrived. */
  async interrupt(): Promise<void> {
    if (!this.#sending) return
    // It may be complete before its event arrives.
    await new Promise(setImmediate)
    this.#sending?.response.destroy()
    this.#sending = undefined
  }

  #delivered(sequence: number): void {
    this.#waiting = this.#waiting.filter(other => other !== sequence)
    this.advance(sequence)
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
    this.#position ??= await recent()
    const distance = journal.head - this.#position
    if (distance > 0) await (distance > longScan ? long : short).join(this)
  }

  #isFresh({ time }: Event): boolean {
    return time >= this.#context.now() - this.#context.config.maxAge
  }
}
