import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../log.js'
import type { Clock } from '../push/receipts/clock.js'
import type { NotifyBook, QueuedMail } from './book.js'
import { MailError, type Mailer } from './mail.js'
import { retryDelay } from './schedule.js'

/** What a sender needs. */
export interface SenderOptions {
  readonly book: NotifyBook
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

/** How long to wait after the store did not do what it should, in milliseconds. */
const storeDelay = 1000
/** How long a close waits for a mail that is under way, in milliseconds. */
const closeTime = 2000

/** Sends the mails of the book, one at a time. */
export class Sender {
  readonly #options: SenderOptions
  readonly #attempts = new Map<number, Attempts>()
  /** Those that are done with, although the store may not know yet. */
  readonly #done = new Set<number>()
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
      if (!isDone) continue
      this.#done.add(mail.sequence)
      if (!(await this.#forget(mail))) return
    }
  }

  #due(): QueuedMail | undefined {
    const now = this.#options.clock.now()
    return this.#options.book.mails.find(({ sequence }) => (this.#attempts.get(sequence)?.next ?? 0) <= now)
  }

  #arm(): void {
    if (this.#closed) return
    const { book, clock } = this.#options
    const times = book.mails.map(({ sequence }) => this.#attempts.get(sequence)?.next ?? 0)
    if (times.length === 0) return
    const wait = Math.max(storeDelay, Math.min(...times) - clock.now())
    this.#stopTimer = clock.after(wait, () => this.wake())
  }

  /** Whether it is done with: sent, or given up. */
  async #send(mail: QueuedMail): Promise<boolean> {
    const { mailer, clock, log, giveUpAfter } = this.#options
    const about = { rule: mail.rule, recipient: mail.recipient, messageId: mail.messageId }
    try {
      await mailer.send(mail)
      log.info(about, 'a mail was sent')
      return true
    } catch (error) {
      if (this.#closed) return false
      const now = clock.now()
      const count = (this.#attempts.get(mail.sequence)?.count ?? 0) + 1
      const next = now + retryDelay(count)
      if ((error instanceof MailError && error.permanent) || next > mail.created + giveUpAfter) {
        log.error({ ...about, err: error, subject: mail.subject }, 'a mail could not be sent and is given up')
        return true
      }
      this.#attempts.set(mail.sequence, { count, next })
      const seconds = Math.round((next - now) / 1000)
      log.warn({ ...about, err: error }, `a mail could not be sent; the next attempt is in ${seconds} s`)
      return false
    }
  }

  async #forget(mail: QueuedMail): Promise<boolean> {
    const { book, inTurn, onDone, log } = this.#options
    try {
      await inTurn(() => book.done(mail))
    } catch (error) {
      log.error({ err: error }, 'it could not be written down that a mail was sent')
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
