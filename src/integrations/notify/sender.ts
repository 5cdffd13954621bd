import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import { MailError, type Mailer } from './mail.js'
import type { MailQueue, QueuedMail } from './mail-queue.js'
import { isDue, retryDelay } from './schedule.js'

export interface SenderOptions {
  readonly queue: MailQueue
  readonly mailer: Mailer
  /** How long to retry a mail, in milliseconds. */
  readonly giveUpAfter: number
  /** Runs operations on the queue one after the other. */
  readonly serialize: <T>(run: () => Promise<T>) => Promise<T>
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

/** The mailer accepts no mail. */
interface MailerFailure {
  readonly error: unknown
  /** Failed attempts in a row, of any mail. */
  readonly failures: number
  /** Time of the next attempt, in milliseconds since 1970. */
  readonly until: number
}

/** Delay after a failure of the store, in milliseconds. */
const storeRetryDelay = 1000
/** How long `close` waits for the current mail, in milliseconds. */
const closeTimeout = 2000

/** Sends the mails of the queue, one at a time. */
export class Sender {
  /** Since the start: sent mails, mails given up, and attempts that are retried. */
  readonly counters = { sent: 0, failed: 0, retried: 0 }
  readonly #options: SenderOptions
  readonly #attempts = new Map<number, Attempts>()
  /** Mails that are sent or given up, and perhaps not removed from the store yet. */
  readonly #done = new Set<number>()
  #mailerFailure: MailerFailure | undefined
  #running: Promise<void> | undefined
  #stopTimer: (() => void) | undefined
  #closed = false

  constructor(options: SenderOptions) {
    this.#options = options
  }

  /** Sends mails that are due. */
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
    if (this.#mailerFailure && !this.#closed) await this.#giveUpOverdue(this.#mailerFailure)
  }

  /** While the mailer fails, only one mail is tried; the others are given up in time nevertheless. */
  async #giveUpOverdue({ error }: MailerFailure): Promise<void> {
    const { queue, giveUpAfter, clock } = this.#options
    const overdue = queue.mails.filter(
      ({ sequence, created }) => clock.now() > created + giveUpAfter && !this.#done.has(sequence),
    )
    for (const mail of overdue) {
      this.#giveUp(mail, error)
      if (!(await this.#finish(mail))) return
    }
  }

  /** The mail whose attempt has been due longest, so that mails that fail do not block others. */
  #due(): QueuedMail | undefined {
    const now = this.#options.clock.now()
    const isPaused = this.#mailerFailure !== undefined && !isDue(this.#mailerFailure.until, now)
    let due: { readonly mail: QueuedMail; readonly next: number } | undefined
    for (const mail of this.#options.queue.mails) {
      if (isPaused && !this.#done.has(mail.sequence)) continue
      const next = this.#attempts.get(mail.sequence)?.next ?? 0
      if (isDue(next, now) && (due === undefined || next < due.next)) due = { mail, next }
    }
    return due?.mail
  }

  #arm(): void {
    if (this.#closed) return
    const { queue, clock } = this.#options
    let next = Number.POSITIVE_INFINITY
    for (const { sequence } of queue.mails) next = Math.min(next, this.#attempts.get(sequence)?.next ?? 0)
    if (next === Number.POSITIVE_INFINITY) return
    const wait = Math.max(next, this.#mailerFailure?.until ?? 0) - clock.now()
    this.#stopTimer = clock.after(this.#done.size > 0 ? storeRetryDelay : Math.max(storeRetryDelay, wait), () =>
      this.wake(),
    )
  }

  /** Sends a mail; `true` if it is sent or given up. */
  async #send(mail: QueuedMail): Promise<boolean> {
    const { mailer, clock, log, giveUpAfter } = this.#options
    try {
      await mailer.send(mail)
    } catch (error) {
      if (this.#closed) return false
      const now = clock.now()
      const count = (this.#attempts.get(mail.sequence)?.count ?? 0) + 1
      const isShared = !(error instanceof MailError) || error.isShared
      const failures = (this.#mailerFailure?.failures ?? 0) + 1
      const pause = Math.min(retryDelay(failures), giveUpAfter)
      this.#mailerFailure = isShared ? { error, failures, until: now + pause } : undefined
      const next = Math.max(now + retryDelay(count), this.#mailerFailure?.until ?? 0)
      if ((error instanceof MailError && error.permanent) || next > mail.created + giveUpAfter) {
        this.#giveUp(mail, error)
        return true
      }
      this.#attempts.set(mail.sequence, { count, next })
      this.counters.retried++
      const seconds = Math.round((next - now) / 1000)
      log.warn({ ...logFieldsOf(mail), err: error }, `Failed to send a mail; next attempt in ${seconds} s`)
      return false
    }
    this.#mailerFailure = undefined
    this.counters.sent++
    log.info(logFieldsOf(mail), 'Sent a mail')
    return true
  }

  #giveUp(mail: QueuedMail, error: unknown): void {
    this.counters.failed++
    const about = { ...logFieldsOf(mail), err: error, subject: mail.subject }
    this.#options.log.error(about, 'Failed to send a mail: given up')
  }

  /** Removes a mail; `false` if the store fails. It is not sent again in either case. */
  async #finish(mail: QueuedMail): Promise<boolean> {
    const { queue, serialize, onDone } = this.#options
    this.#done.add(mail.sequence)
    try {
      await serialize(() => queue.done(mail))
    } catch {
      // The queue has logged it.
      return false
    }
    this.#attempts.delete(mail.sequence)
    this.#done.delete(mail.sequence)
    onDone()
    return true
  }

  /** Waits a moment for the current mail; if it is not sent by then, it is sent after the next start. */
  async close(): Promise<void> {
    this.#closed = true
    this.#stopTimer?.()
    const overdue = delay(closeTimeout, undefined, { ref: false })
    await Promise.race([this.#running, overdue])
    this.#options.mailer.close()
  }
}

/** Log fields of a mail. */
function logFieldsOf({ rule, recipient, messageId }: QueuedMail): object {
  return { rule, recipient, messageId }
}
