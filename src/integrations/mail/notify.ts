import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { type Clock, systemClock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import type { MailFigures } from '../../base/metrics.js'
import type { NotifyConfig } from '../../config/notify.js'
import type { Hub } from '../../hub/hub.js'
import { formatId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { ReceiptStore } from '../../receipts/store.js'
import { type Alert, occurrenceOf } from './alert.js'
import { type BrokerEvent, BrokerWatch } from './broker-watch.js'
import { letterOf } from './compose-mail.js'
import { Listener } from './listener.js'
import { openMailer } from './mail.js'
import { type FoundEntry, MailQueue, type QueuedMail } from './mail-queue.js'
import { compileRules, type Rule } from './rules.js'
import { nextMailAt } from './schedule.js'
import { Sender } from './sender.js'

/** What sends mails. */
export interface Notify {
  /** What has become of mails since the start. */
  readonly figures: MailFigures
  /** Stops. What has not been sent is there at the next start, where it is kept at all. Idempotent. */
  close(): Promise<void>
}

/** What it needs. */
export interface NotifyOptions {
  readonly config: NotifyConfig
  readonly hub: Hub
  readonly journal: Journal
  /** Whether push has its session with the broker. */
  readonly isConnected: () => boolean
  /** Where the gateway keeps its data; `undefined` for memory only. */
  readonly data: string | undefined
  /** Relative paths of the configuration begin here. */
  readonly cwd: string
  readonly clock?: Clock
  /** How many characters the texts of mails have that wait, together; 32 Mi when left out. */
  readonly maxQueuedLength?: number | undefined
  /** How long a sendmail may take, in milliseconds; a minute when left out. */
  readonly sendmailTime?: number | undefined
  readonly log: Logger
}

/** How often the place in the journal is written down while nothing happens, in milliseconds. */
const cursorInterval = 60_000
/** The longest timer; the machine's time may be set meanwhile. In milliseconds. */
const longestTimer = 60_000
/** How long to wait after the store did not do what it should, in milliseconds. */
const storeDelay = 1000

/**
 * Sends mails of what happens, by the rules of the configuration.
 *
 * @throws {StartError} where its store or a file cannot be used
 */
export async function openNotify(options: NotifyOptions): Promise<Notify> {
  const { config, data, cwd, clock = systemClock, sendmailTime, log } = options
  const mailer = await openMailer(config.mail, cwd, { clock, sendmailTime })
  const store = await openStore(data, log)
  try {
    const book = await MailQueue.open(store, log)
    return new MailNotify(options, store, book, mailer)
  } catch (error) {
    mailer.close()
    await store.close()
    throw error
  }
}

async function openStore(data: string | undefined, log: Logger): Promise<ReceiptStore> {
  if (data === undefined) {
    const { MemoryReceiptStore } = await import('../../receipts/memory-store.js')
    return new MemoryReceiptStore()
  }
  const { openLevelReceiptStore } = await import('../../receipts/level-store.js')
  return openLevelReceiptStore({ directory: join(data, 'notify'), holds: 'the mails to be sent', log })
}

class MailNotify implements Notify {
  readonly #options: NotifyOptions
  readonly #clock: Clock
  readonly #store: ReceiptStore
  readonly #book: MailQueue
  readonly #rules: readonly Rule[]
  readonly #sender: Sender
  readonly #listener: Listener<FoundEntry> | undefined
  readonly #watch: BrokerWatch | undefined
  /** Ends when all that was begun with the book is done. */
  #turn: Promise<unknown> = Promise.resolve()
  #stopTimer: () => void = () => {}
  #stopCursorTimer: () => void = () => {}
  #closing: Promise<void> | undefined

  constructor(
    options: NotifyOptions,
    store: ReceiptStore,
    book: MailQueue,
    mailer: Awaited<ReturnType<typeof openMailer>>,
  ) {
    const { config, hub, journal, isConnected, clock = systemClock, log } = options
    this.#options = options
    this.#clock = clock
    this.#store = store
    this.#book = book
    this.#rules = compileRules(config.rules)
    this.#sender = new Sender({
      book,
      mailer,
      giveUpAfter: config.mail.giveUpAfter,
      inTurn: run => this.#inTurn(run),
      onDone: () => this.#postSoon(),
      clock,
      log,
    })
    const filters = [...new Set(config.rules.flatMap(({ topics }) => topics))]
    if (filters.length > 0) {
      // Of what was there before the first start, nobody wants mails.
      const cursor = book.cursor ?? formatId(journal.epoch, journal.head)
      this.#listener = new Listener({
        ...{ hub, filters, cursor, clock, log },
        read: event => {
          const occurrence = occurrenceOf(event)
          return this.#entries(occurrence, rule => rule.wantsTopic(occurrence.topic))
        },
        take: (found, place) => this.#take(found, place),
      })
      this.#keepCursor()
    }
    const watched = config.rules.some(({ events }) => events.length > 0)
    if (watched) {
      const onEvent = (event: BrokerEvent, occurrence: Alert): void => this.#takeEvent(event, occurrence)
      this.#watch = new BrokerWatch({ isConnected, onEvent, clock })
    }
    this.#postSoon()
    this.#sender.wake()
  }

  get figures(): MailFigures {
    return { ...this.#sender.counters, ...this.#book.counters, waiting: this.#book.mails.length }
  }

  /** One after the other. */
  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(run)
    this.#turn = result.catch(() => {})
    return result
  }

  async #take(found: readonly FoundEntry[], cursor: string | undefined): Promise<void> {
    await this.#inTurn(() => this.#book.take(found, cursor, this.#clock.now()))
    this.#postSoon()
  }

  #entries(occurrence: Alert, isAbout: (rule: Rule) => boolean): FoundEntry[] {
    return this.#rules.flatMap(rule => {
      const entry = isAbout(rule) ? rule.entryOf(occurrence) : undefined
      return entry ? [{ rule: rule.name, entry }] : []
    })
  }

  #takeEvent(event: BrokerEvent, occurrence: Alert): void {
    const found = this.#entries(occurrence, rule => rule.config.events.includes(event))
    this.#inTurn(() => this.#book.take(found, undefined, this.#clock.now())).then(
      () => this.#postSoon(),
      () => this.#options.log.error(`no mail is sent of ${event}`),
    )
  }

  /** Makes mails of what is due, and comes back for what is not. */
  #postSoon(delay = 0): void {
    if (this.#closing) return
    this.#stopTimer()
    this.#stopTimer = this.#clock.after(delay, () => {
      this.#inTurn(() => this.#post()).then(
        next => this.#postAt(next),
        // The book has said so.
        () => this.#postSoon(storeDelay),
      )
    })
  }

  #postAt(next: number): void {
    this.#sender.wake()
    if (next < Number.POSITIVE_INFINITY) {
      this.#postSoon(Math.max(1, Math.min(next - this.#clock.now(), longestTimer)))
    }
  }

  /** Returns when the next mail is due, in milliseconds since 1970. */
  async #post(): Promise<number> {
    const { log, config } = this.#options
    for (const name of this.#book.rules) {
      if (this.#rules.some(rule => rule.name === name)) continue
      if (this.#book.batchOf(name)) log.warn({ rule: name }, 'the rule is gone, and what it has collected with it')
      await this.#book.forget(name)
    }
    let next = Number.POSITIVE_INFINITY
    for (const rule of this.#rules) {
      const batch = this.#book.batchOf(rule.name)
      if (!batch) continue
      const { collect, atMost, to } = rule.config
      const now = this.#clock.now()
      const due = nextMailAt(now, { ...batch, collect, sent: this.#book.sentOf(rule.name), atMost })
      if (due > now) next = Math.min(next, due)
      else if (this.#hasRoom(to.length, batch.length)) {
        const mails = this.#mailsOf(rule, letterOf(batch.entries, batch.more, config.mail.subjectPrefix), now)
        await this.#book.post(rule.name, mails, now, atMost.count)
      }
    }
    return next
  }

  /** Whether so many mails more may wait, each with a text of about so many characters. */
  #hasRoom(count: number, length: number): boolean {
    const { config, maxQueuedLength = 32 * 1024 ** 2 } = this.#options
    const { mails, mailLength } = this.#book
    // With none waiting, also more than may wait: otherwise nobody would ever get one.
    if (mails.length === 0) return true
    return mails.length + count <= config.mail.maxQueued && mailLength + count * length <= maxQueuedLength
  }

  #mailsOf(
    { name, config }: Rule,
    letter: ReturnType<typeof letterOf>,
    created: number,
  ): Omit<QueuedMail, 'sequence'>[] {
    const domain = /@([^>]*)/.exec(this.#options.config.mail.from)?.[1] ?? 'localhost'
    const { to } = config
    const messageId = `<${randomUUID()}@${domain}>`
    return to.map(recipient => ({ rule: name, recipient, to, ...letter, messageId, created }))
  }

  #keepCursor(): void {
    this.#stopCursorTimer = this.#clock.after(cursorInterval, () => {
      this.#writeCursor()
      this.#keepCursor()
    })
  }

  async #writeCursor(): Promise<void> {
    try {
      await this.#inTurn(async () => this.#book.take([], this.#listener?.cursor, this.#clock.now()))
    } catch {
      // The book has said so; after a crash, more is looked through once more.
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
    await this.#listener?.end()
    await this.#sender.close()
    await this.#writeCursor()
    await this.#turn
    await this.#store.close()
  }
}
