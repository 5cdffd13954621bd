import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import { MailError, type Mailer } from './mail.js'
import type { MailQueue, QueuedMail } from './mail-queue.js'
import { isDue, retryDelay } from './schedule.js'

/** What a sender needs. */
export interface SenderOptions {
  readonly book: MailQueue
  readonly mailer: Mailer
  /** How long a mail is tried, in milliseconds. */
  readonly giveUpAfter: number
  /** Does something with the book when nothing else does. */
  readonly inTurn: <T>(run: () => Promise<T>) => Promise<T>
  /** Called when there is room for further mails. */
  readonly onDone: () => void
  readonly clock: Clock
  readonly log: Logger
}

interface Attempts {
  count: number
  /** When the next one may be, in milliseconds since 1970. */
  next: number
}

/** No mail is taken just now. */
interface Away {
  readonly error: unknown
  /** How many attempts in a row have failed, of whatever mail. */
  readonly failures: number
  /** When the next one may be, in milliseconds since 1970. */
  readonly until: number
}

/** How long to wait after the store did not do what it should, in milliseconds. */
const storeDelay = 1000
/** How long a close waits for a mail that is under way, in milliseconds. */
const closeTime = 2000

/** Sends the mails of the book, one at a time. */
export class Sender {
  /** Mails since the start: those that were taken, those that were given up, and attempts that were not the last. */
  readonly counters = { sent: 0, failed: 0, retried: 0 }
  readonly #options: SenderOptions
  readonly #attempts = new Map<number, Attempts>()
  /** Those that are done with, although the store may not know yet. */
  readonly #done = new Set<number>()
  #away: Away | undefined
  #running: Promise<void> | undefined
  #stopTimer: (() => void) | undefined
  #closed = false

  constructor(options: SenderOptions) {
    this.#options = options
  }

  /** There may be something to send. */
  wake(): void {
    if (this.#running || this.#closed) return
    this.#stopTimer?.()
    this.#running = this.#run().finally(() => {
      this.#running = undefined
      this.#arm()
    })
  }

  async #run(): Promise<void> {
    for (let mail = this.#due(); mail && !this.#closed; mail = this.#due()) {
      const isDone = this.#done.has(mail.sequence) || (await this.#send(mail))
      if (isDone && !(await this.#finish(mail))) return
    }
    if (this.#away && !this.#closed) await this.#giveUpOverdue(this.#away)
  }

  /** While none is taken, only one is tried; the others do not wait longer than they may for that. */
  async #giveUpOverdue({ error }: Away): Promise<void> {
    const { book, giveUpAfter, clock } = this.#options
    const overdue = book.mails.filter(
      ({ sequence, created }) => clock.now() > created + giveUpAfter && !this.#done.has(sequence),
    )
    for (const mail of overdue) {
      this.#giveUp(mail, error)
      if (!(await this.#finish(mail))) return
    }
  }

  /** The one that has waited longest for its turn: of many that cannot be sent, none keeps the others waiting. */
  #due(): QueuedMail | undefined {
    const now = this.#options.clock.now()
    const isPaused = this.#away !== undefined && !isDue(this.#away.until, now)
    let due: { readonly mail: QueuedMail; readonly next: number } | undefined
    for (const mail of this.#options.book.mails) {
      if (isPaused && !this.#done.has(mail.sequence)) continue
      const next = this.#attempts.get(mail.sequence)?.next ?? 0
      if (isDue(next, now) && (due === undefined || next < due.next)) due = { mail, next }
    }
    return due?.mail
  }

  #arm(): void {
    if (this.#closed) return
    const { book, clock } = this.#options
    let next = Number.POSITIVE_INFINITY
    for (const { sequence } of book.mails) next = Math.min(next, this.#attempts.get(sequence)?.next ?? 0)
    if (next === Number.POSITIVE_INFINITY) return
    const wait = Math.max(next, this.#away?.until ?? 0) - clock.now()
    this.#stopTimer = clock.after(this.#done.size > 0 ? storeDelay : Math.max(storeDelay, wait), () => this.wake())
  }

  /** Whether it is done with: sent, or given up. */
  async #send(mail: QueuedMail): Promise<boolean> {
    const { mailer, clock, log, giveUpAfter } = this.#options
    try {
      await mailer.send(mail)
    } catch (error) {
      if (this.#closed) return false
      const now = clock.now()
      const count = (this.#attempts.get(mail.sequence)?.count ?? 0) + 1
      const isShared = !(error instanceof MailError) || error.isShared
      const failures = (this.#away?.failures ?? 0) + 1
      const pause = Math.min(retryDelay(failures), giveUpAfter)
      this.#away = isShared ? { error, failures, until: now + pause } : undefined
      const next = Math.max(now + retryDelay(count), this.#away?.until ?? 0)
      if ((error instanceof MailError && error.permanent) || next > mail.created + giveUpAfter) {
        this.#giveUp(mail, error)
        return true
      }
      this.#attempts.set(mail.sequence, { count, next })
      this.counters.retried++
      const seconds = Math.round((next - now) / 1000)
      log.warn({ ...aboutOf(mail), err: error }, `a mail could not be sent; the next attempt is in ${seconds} s`)
      return false
    }
    this.#away = undefined
    this.counters.sent++
    log.info(aboutOf(mail), 'a mail was sent')
    return true
  }

  #giveUp(mail: QueuedMail, error: unknown): void {
    this.counters.failed++
    const about = { ...aboutOf(mail), err: error, subject: mail.subject }
    this.#options.log.error(about, 'a mail could not be sent and is given up')
  }

  /** Whether it is written down that a mail is done with. It is not tried again in any case. */
  async #finish(mail: QueuedMail): Promise<boolean> {
    this.#done.add(mail.sequence)
    return this.#forget(mail)
  }

  async #forget(mail: QueuedMail): Promise<boolean> {
    const { book, inTurn, onDone } = this.#options
    try {
      await inTurn(() => book.done(mail))
    } catch {
      // The book has said so.
      return false
    }
    this.#attempts.delete(mail.sequence)
    this.#done.delete(mail.sequence)
    onDone()
    return true
  }

  /** What is under way has a moment to be finished; then it is tried again after the next start. */
  async close(): Promise<void> {
    this.#closed = true
    this.#stopTimer?.()
    const overdue = delay(closeTime, undefined, { ref: false })
    await Promise.race([this.#running, overdue])
    this.#options.mailer.close()
  }
}

/** What the log says of a mail. */
function aboutOf({ rule, recipient, messageId }: QueuedMail): object {
  return { rule, recipient, messageId }
}
