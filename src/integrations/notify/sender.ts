import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import { type Channel, SendError } from './channel.js'
import type { QueuedItem } from './notification-queue.js'
import { isDue, maxRetryDelay, retryDelay } from './schedule.js'

/** What became of an item. */
export type Outcome = 'sent' | 'given-up'

export interface SenderOptions<T extends QueuedItem> {
  /** Unsent items, oldest first. */
  readonly items: () => readonly T[]
  readonly channel: Channel<T>
  /** Removes an item from the queue. */
  readonly remove: (item: T, outcome: Outcome) => Promise<void>
  /** Called when the queue has room again. */
  readonly onDone: () => void
  readonly clock: Clock
  readonly log: Logger
}

interface Attempts {
  count: number
  /** Time of the next attempt, in milliseconds since 1970. */
  next: number
}

/** The channel accepts no item. */
interface ChannelFailure {
  readonly error: unknown
  /** Failed attempts in a row, of any item. */
  readonly failures: number
  /** Time of the next attempt, in milliseconds since 1970. */
  readonly until: number
}

/** Delay after a failure of the store, in milliseconds. */
const storeRetryDelay = 1000
/** How long `close` waits for the current item, in milliseconds. */
const closeTimeout = 2000

/** Sends the items of a channel, one at a time. */
export class Sender<T extends QueuedItem> {
  /** Since the start: sent items, items given up, and attempts that are retried. */
  readonly counters = { sent: 0, failed: 0, retried: 0 }
  readonly #options: SenderOptions<T>
  readonly #attempts = new Map<number, Attempts>()
  /** Outcomes of items that are perhaps not removed from the store yet. */
  readonly #done = new Map<number, Outcome>()
  #channelFailure: ChannelFailure | undefined
  /** The error after which nothing is sent any more. */
  #gone: SendError | undefined
  #running: Promise<void> | undefined
  /** Whether `wake` was called while it was running. */
  #isWoken = false
  #stopTimer: (() => void) | undefined
  #closed = false

  constructor(options: SenderOptions<T>) {
    this.#options = options
  }

  /** Sends items that are due. */
  wake(): void {
    this.#isWoken = true
    if (this.#running || this.#closed) return
    this.#isWoken = false
    this.#stopTimer?.()
    this.#running = this.#run().finally(() => {
      this.#running = undefined
      if (this.#isWoken) this.wake()
      else this.#arm()
    })
  }

  async #run(): Promise<void> {
    for (let item = this.#due(); item && !this.#closed; item = this.#due()) {
      const outcome = this.#done.get(item.sequence) ?? (await this.#send(item))
      if (outcome && !(await this.#finish(item, outcome))) return
    }
    if (this.#channelFailure && !this.#closed) await this.#giveUpOverdue(this.#channelFailure)
  }

  /** While the channel fails, only one item is tried; the others are given up in time nevertheless. */
  async #giveUpOverdue({ error }: ChannelFailure): Promise<void> {
    const { items, channel, clock } = this.#options
    const overdue = items().filter(
      ({ sequence, created }) => clock.now() > created + channel.giveUpAfter && !this.#done.has(sequence),
    )
    for (const item of overdue) {
      if (!(await this.#finish(item, await this.#giveUp(item, error)))) return
    }
  }

  /** The item whose attempt has been due longest, so that items that fail do not block others. */
  #due(): T | undefined {
    const now = this.#options.clock.now()
    const isPaused = this.#channelFailure !== undefined && !isDue(this.#channelFailure.until, now)
    let due: { readonly item: T; readonly next: number } | undefined
    for (const item of this.#options.items()) {
      if (isPaused && !this.#done.has(item.sequence)) continue
      const next = this.#attempts.get(item.sequence)?.next ?? 0
      if (isDue(next, now) && (due === undefined || next < due.next)) due = { item, next }
    }
    return due?.item
  }

  #arm(): void {
    if (this.#closed) return
    const { items, clock } = this.#options
    let next = Number.POSITIVE_INFINITY
    for (const { sequence } of items()) next = Math.min(next, this.#attempts.get(sequence)?.next ?? 0)
    if (next === Number.POSITIVE_INFINITY) return
    const wait = Math.max(next, this.#channelFailure?.until ?? 0) - clock.now()
    this.#stopTimer = clock.after(this.#done.size > 0 ? storeRetryDelay : Math.max(storeRetryDelay, wait), () =>
      this.wake(),
    )
  }

  /** Sends an item; `undefined` if it is to be retried. */
  async #send(item: T): Promise<Outcome | undefined> {
    const { channel, clock, log } = this.#options
    if (this.#gone) return this.#giveUp(item, this.#gone)
    try {
      await channel.send(item)
    } catch (error) {
      if (this.#closed) return undefined
      return this.#failed(item, sendErrorOf(error), clock.now())
    }
    this.#channelFailure = undefined
    this.counters.sent++
    log[channel.sentLevel](channel.fieldsOf(item), `Sent ${channel.noun}`)
    return 'sent'
  }

  /** Plans the next attempt, or gives the item up. */
  async #failed(item: T, error: SendError, now: number): Promise<Outcome | undefined> {
    const { channel, log } = this.#options
    const { delays, giveUpAfter } = channel
    const count = (this.#attempts.get(item.sequence)?.count ?? 0) + 1
    const failures = (this.#channelFailure?.failures ?? 0) + 1
    const asked = Math.min(error.retryAfter, maxRetryDelay)
    const pause = Math.min(Math.max(retryDelay(failures, delays), asked), giveUpAfter)
    this.#channelFailure = error.isShared && !error.isGone ? { error, failures, until: now + pause } : undefined
    if (error.isGone) this.#gone = error
    const next = Math.max(now + retryDelay(count, delays), this.#channelFailure?.until ?? 0)
    if (error.permanent || error.isGone || next > item.created + giveUpAfter) {
      return this.#giveUp(item, error)
    }
    this.#attempts.set(item.sequence, { count, next })
    this.counters.retried++
    const seconds = Math.round((next - now) / 1000)
    log.warn({ ...channel.fieldsOf(item), err: error }, `Failed to send ${channel.noun}; next attempt in ${seconds} s`)
    return undefined
  }

  async #giveUp(item: T, error: unknown): Promise<Outcome> {
    this.counters.failed++
    await this.#options.channel.givenUp(item, error)
    return 'given-up'
  }

  /** Removes an item; `false` if the store fails. It is not sent again in either case. */
  async #finish(item: T, outcome: Outcome): Promise<boolean> {
    const { remove, onDone } = this.#options
    this.#done.set(item.sequence, outcome)
    try {
      await remove(item, outcome)
    } catch {
      // The queue has logged it.
      return false
    }
    this.#attempts.delete(item.sequence)
    this.#done.delete(item.sequence)
    onDone()
    return true
  }

  /** Waits a moment for the current item; if it is not sent by then, it is sent after the next start. */
  async close(): Promise<void> {
    this.#closed = true
    this.#stopTimer?.()
    const overdue = delay(closeTimeout, undefined, { ref: false })
    await Promise.race([this.#running, overdue])
    this.#options.channel.close()
  }
}

/** An unexpected error is not that of one item. */
function sendErrorOf(error: unknown): SendError {
  return error instanceof SendError ? error : new SendError(String(error), { isShared: true, cause: error })
}
