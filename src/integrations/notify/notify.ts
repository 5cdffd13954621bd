import { randomUUID } from 'node:crypto'
import { type Clock, systemClock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import type { MailFigures } from '../../base/metrics.js'
import type { NotifyConfig } from '../../config/notify.js'
import type { Hub } from '../../hub/hub.js'
import { formatId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { Store } from '../../storage/store.js'
import { type Alert, alertOf } from './alert.js'
import { type BrokerEvent, BrokerWatch } from './broker-watch.js'
import { EventSubscriber } from './event-subscriber.js'
import { formatTime } from './format.js'
import { MailError, type Mailer, openMailer } from './mail.js'
import { type FoundEntry, MailQueue, type QueuedMail } from './mail-queue.js'
import { compileRules, type Entry, oneLine, type Rule } from './rules.js'
import { nextMailAt } from './schedule.js'
import { Sender } from './sender.js'

/** Sends mails by the configured rules. */
export interface Notify {
  /** Counts since the start. */
  readonly figures: MailFigures
  /** Stops. Unsent mails are sent after the next start, unless they are in memory only. Idempotent. */
  close(): Promise<void>
}

export interface NotifyOptions {
  readonly config: NotifyConfig
  readonly hub: Hub
  readonly journal: Journal
  /** Whether push is connected to the broker. */
  readonly isConnected: () => boolean
  /** Closed with it. */
  readonly store: Store
  /** Relative paths of the configuration begin here. */
  readonly cwd: string
  readonly clock?: Clock
  /** Maximum characters in the texts of unsent mails. Default: 32 Mi. */
  readonly maxQueuedLength?: number | undefined
  /** Whether this gateway sends the mails; left out for a gateway alone. */
  readonly isSender?: (() => boolean) | undefined
  /** Timeout of a sendmail program, in milliseconds. Default: 60,000. */
  readonly sendmailTime?: number | undefined
  readonly log: Logger
}

/** Interval at which the cursor is stored without mails, in milliseconds. */
const cursorInterval = 60_000
/** The longest timer, because the machine's time may be set meanwhile; in milliseconds. */
const maxTimer = 60_000
/** Delay after a failure of the store, in milliseconds. */
const storeRetryDelay = 1000

/**
 * Opens the mail queue and sends mails by the rules of the configuration.
 *
 * @throws {StartError} if the store or a file cannot be used
 */
export async function openNotify(options: NotifyOptions): Promise<Notify> {
  const { config, store, journal, cwd, clock = systemClock, sendmailTime, log } = options
  let mailer: Mailer | undefined
  try {
    mailer = await openMailer(config.mail, cwd, { clock, sendmailTime })
    const queue = await MailQueue.open(store, log)
    const hasTopics = config.rules.some(({ topics }) => topics.length > 0)
    // Events before the first start get no mails.
    if (hasTopics && queue.cursor === undefined) {
      await queue.take([], formatId(journal.epoch, journal.head), clock.now())
    }
    return new MailNotify(options, queue, mailer)
  } catch (error) {
    mailer?.close()
    await store.close()
    throw error
  }
}

class MailNotify implements Notify {
  readonly #options: NotifyOptions
  readonly #clock: Clock
  readonly #queue: MailQueue
  readonly #rules: readonly Rule[]
  readonly #sender: Sender
  readonly #subscriber: EventSubscriber<FoundEntry> | undefined
  readonly #watch: BrokerWatch | undefined
  /** Resolves when the last operation on the queue has ended. */
  #lastOperation: Promise<unknown> = Promise.resolve()
  #stopTimer: () => void = () => {}
  #stopCursorTimer: () => void = () => {}
  #closing: Promise<void> | undefined

  constructor(options: NotifyOptions, queue: MailQueue, mailer: Mailer) {
    const { config, hub, isConnected, isSender, clock = systemClock, log } = options
    this.#options = options
    this.#clock = clock
    this.#queue = queue
    this.#rules = compileRules(config.rules)
    this.#sender = new Sender({
      queue,
      mailer: isSender ? onlyWhile(isSender, mailer) : mailer,
      giveUpAfter: config.mail.giveUpAfter,
      serialize: run => this.#serialize(run),
      onDone: () => this.#postSoon(),
      clock,
      log,
    })
    const filters = [...new Set(config.rules.flatMap(({ topics }) => topics))]
    if (filters.length > 0) {
      this.#subscriber = new EventSubscriber({
        ...{ hub, filters, cursor: queue.cursor ?? '', clock, log },
        read: event => {
          const alert = alertOf(event)
          return this.#entries(alert, rule => rule.wantsTopic(alert.topic))
        },
        take: (found, position) => this.#take(found, position),
      })
      this.#scheduleCursorWrite()
    }
    const watched = config.rules.some(({ events }) => events.length > 0)
    if (watched) {
      const onEvent = (event: BrokerEvent, alert: Alert): void => this.#takeEvent(event, alert)
      this.#watch = new BrokerWatch({ isConnected, isReported: queue.isBrokerAway, onEvent, clock })
    }
    this.#postSoon()
    this.#sender.wake()
  }

  get figures(): MailFigures {
    return { ...this.#sender.counters, ...this.#queue.counters, waiting: this.#queue.mails.length }
  }

  /** Runs operations on the queue one after the other. */
  #serialize<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#lastOperation.then(run)
    this.#lastOperation = result.catch(() => {})
    return result
  }

  async #take(found: readonly FoundEntry[], cursor: string | undefined): Promise<void> {
    await this.#serialize(() => this.#queue.take(found, cursor, this.#clock.now()))
    this.#postSoon()
  }

  #entries(alert: Alert, applies: (rule: Rule) => boolean): FoundEntry[] {
    return this.#rules.flatMap(rule => {
      const entry = applies(rule) ? rule.entryOf(alert) : undefined
      return entry ? [{ rule: rule.name, entry }] : []
    })
  }

  #takeEvent(event: BrokerEvent, alert: Alert): void {
    const found = this.#entries(alert, rule => rule.config.events.includes(event))
    const isAway = event === 'broker-away'
    this.#serialize(() => this.#queue.takeBrokerEvent(found, isAway, this.#clock.now())).then(
      () => this.#postSoon(),
      () => this.#options.log.error(`Failed to store ${event}: no mail for it`),
    )
  }

  /** Composes due mails, and sets a timer for the others. */
  #postSoon(delay = 0): void {
    if (this.#closing) return
    this.#stopTimer()
    this.#stopTimer = this.#clock.after(delay, () => {
      this.#serialize(() => this.#post()).then(
        next => this.#postAt(next),
        // The queue has logged it.
        () => this.#postSoon(storeRetryDelay),
      )
    })
  }

  #postAt(next: number): void {
    this.#sender.wake()
    if (next < Number.POSITIVE_INFINITY) {
      this.#postSoon(Math.max(1, Math.min(next - this.#clock.now(), maxTimer)))
    }
  }

  /** Returns when the next mail is due, in milliseconds since 1970. */
  async #post(): Promise<number> {
    const { log, config } = this.#options
    for (const name of this.#queue.rules) {
      if (this.#rules.some(rule => rule.name === name)) continue
      if (this.#queue.batchOf(name))
        log.warn({ rule: name }, 'The rule no longer exists: its collected messages are dropped')
      await this.#queue.forget(name)
    }
    let next = Number.POSITIVE_INFINITY
    for (const rule of this.#rules) {
      const batch = this.#queue.batchOf(rule.name)
      if (!batch) continue
      const { collect, atMost, to } = rule.config
      const now = this.#clock.now()
      const due = nextMailAt(now, { ...batch, collect, sent: this.#queue.sentOf(rule.name), atMost })
      if (due > now) next = Math.min(next, due)
      else if (this.#hasRoom(to.length, batch.length)) {
        const mails = this.#mailsOf(rule, composeMail(batch.entries, batch.more, config.mail.subjectPrefix), now)
        await this.#queue.post(rule.name, mails, now, atMost.count)
      }
    }
    return next
  }

  /** Whether `count` further mails of about `length` characters fit into the queue. */
  #hasRoom(count: number, length: number): boolean {
    const { config, maxQueuedLength = 32 * 1024 ** 2 } = this.#options
    const { mails, mailLength } = this.#queue
    // An empty queue takes any number: otherwise a rule with many recipients would never send.
    if (mails.length === 0) return true
    return mails.length + count <= config.mail.maxQueued && mailLength + count * length <= maxQueuedLength
  }

  #mailsOf(
    { name, config }: Rule,
    mail: ReturnType<typeof composeMail>,
    created: number,
  ): Omit<QueuedMail, 'sequence'>[] {
    const domain = /@([^>]*)/.exec(this.#options.config.mail.from)?.[1] ?? 'localhost'
    const { to } = config
    const messageId = `<${randomUUID()}@${domain}>`
    return to.map(recipient => ({ rule: name, recipient, to, ...mail, messageId, created }))
  }

  #scheduleCursorWrite(): void {
    this.#stopCursorTimer = this.#clock.after(cursorInterval, () => {
      this.#writeCursor()
      this.#scheduleCursorWrite()
    })
  }

  async #writeCursor(): Promise<void> {
    try {
      await this.#serialize(async () => this.#queue.take([], this.#subscriber?.cursor, this.#clock.now()))
    } catch {
      // The queue has logged it; after a crash, more events are read again.
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stopTimer()
    this.#stopCursorTimer()
    this.#watch?.close()
    await this.#subscriber?.end()
    await this.#sender.close()
    await this.#writeCursor()
    await this.#lastOperation
    await this.#options.store.close()
  }
}

/** A mailer that refuses all mails while another gateway sends them. */
function onlyWhile(isSender: () => boolean, mailer: Mailer): Mailer {
  return {
    send: async mail => {
      if (!isSender()) throw new MailError('another gateway sends the mails now', { isShared: true })
      await mailer.send(mail)
    },
    close: () => mailer.close(),
  }
}

/**
 * Composes one mail of the collected entries.
 *
 * @param more number of further events, without their content
 */
function composeMail(
  entries: readonly Entry[],
  more: number,
  prefix: string | undefined,
): { readonly subject: string; readonly text: string } {
  const [first] = entries
  const all = entries.length + more
  const head = `${prefix === undefined ? '' : `${prefix}: `}${first?.subject ?? `${more} events`}`
  const subject = oneLine(all > 1 && first ? `${head} (and ${all - 1} more)` : head)
  if (first && all === 1) return { subject, text: `${first.text}\n` }
  const parts = entries.map(
    ({ time, topic, subject: title, text }) =>
      `${formatTime(time)}  ${oneLine(topic === '' ? title : topic)}\n\n${text}\n`,
  )
  if (more > 0) parts.push(`${more} more ${more === 1 ? 'is' : 'are'} not shown.\n`)
  return { subject, text: parts.join(`\n${'-'.repeat(60)}\n\n`) }
}
