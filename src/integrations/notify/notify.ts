import { randomUUID } from 'node:crypto'
import { type Clock, systemClock } from '../../base/clock.js'
import type { NotificationFigures } from '../../base/metrics.js'
import { paceOf } from '../../config/notify.js'
import type { Hub } from '../../hub/hub.js'
import { type Event, formatId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { Store } from '../../storage/store.js'
import { type Alert, alertOf } from './alert.js'
import { type BrokerEvent, BrokerWatch } from './broker-watch.js'
import { type Channel, onlyWhile } from './channel.js'
import { type Channels, type ChannelsOptions, closeChannels, openChannels } from './channels.js'
import { composeMail } from './compose-mail.js'
import { type DeadLetter, DeadLetters } from './dead-letters.js'
import { EventSubscriber } from './event-subscriber.js'
import {
  type Batch,
  type EntryBounds,
  type FoundEntry,
  NotificationQueue,
  type QueuedCall,
  type QueuedMail,
} from './notification-queue.js'
import { compileRules, type Rule, webhookName } from './rules.js'
import { nextDueAt } from './schedule.js'
import { Sender, type SenderOptions } from './sender.js'
import {
  alertJson,
  callBounds,
  composeCall,
  droppedLetters,
  eventOverhead,
  eventsOf,
  type WebhookBounds,
  webhookBounds,
} from './webhooks.js'

/** Counts of mails and webhook calls since the start. */
export interface NotifyFigures {
  readonly mails: NotificationFigures
  /** By the name of the rule. */
  readonly webhooks: ReadonlyMap<string, NotificationFigures>
}

/** Sends mails and calls webhooks by the configured rules. */
export interface Notify {
  readonly figures: NotifyFigures
  /** Stops. What is not sent is sent after the next start, unless it is in memory only. Idempotent. */
  close(): Promise<void>
}

export interface NotifyOptions extends ChannelsOptions {
  readonly hub: Hub
  readonly journal: Journal
  /** Makes the JSON of an event for webhooks, as in the push API. */
  readonly encode: (event: Event) => string
  /** Whether push is connected to the broker. */
  readonly isConnected: () => boolean
  /** Closed with it. */
  readonly store: Store
  /** File of the dead-letter log; `undefined` for none. */
  readonly deadLetters: string | undefined
  /** Maximum characters in the texts of unsent mails. Default: 32 Mi. */
  readonly maxQueuedLength?: number | undefined
  /** Whether this gateway sends; left out for a gateway alone. */
  readonly isSender?: (() => boolean) | undefined
}

/** Interval at which the cursor is stored without mails, in milliseconds. */
const cursorInterval = 60_000
/** The longest timer, because the machine's time may be set meanwhile; in milliseconds. */
const maxTimer = 60_000
/** Delay after a failure of the store, in milliseconds. */
const storeRetryDelay = 1000
/** Entries of a mail, and characters of their texts; a mail has only the number of further ones. */
const mailBounds = { count: 100, length: 262_144 }

/**
 * Opens the queue, and sends mails and calls webhooks by the rules of the configuration.
 *
 * @throws {StartError} if the store or a file cannot be used
 */
export async function openNotify(options: NotifyOptions): Promise<Notify> {
  const { config, store, journal, clock = systemClock, log } = options
  let channels: Channels | undefined
  try {
    const deadLetters = new DeadLetters(options.deadLetters, log)
    const addDeadLetter = (letter: DeadLetter): Promise<void> => deadLetters.add(letter, clock.now())
    channels = await openChannels(options, addDeadLetter)
    const bounds = webhookBounds(channels.webhooks.size)
    let last: { readonly alert: Alert; readonly json: string } | undefined
    // Many rules may want an alert.
    const jsonOf = (alert: Alert): string => {
      if (last?.alert !== alert) last = { alert, json: alertJson(alert, options.encode, bounds.event) }
      return last.json
    }
    const rules = compileRules(config.rules, jsonOf)
    const queue = await NotificationQueue.open({
      store,
      boundsOf: entryBounds(rules, bounds),
      onDropped: async dropped => {
        for (const letter of droppedLetters(dropped)) await addDeadLetter(letter)
      },
      log,
    })
    const hasTopics = config.rules.some(({ topics }) => topics.length > 0)
    // Events before the first start cause nothing.
    if (hasTopics && queue.cursor === undefined) {
      await queue.take([], formatId(journal.epoch, journal.head), clock.now())
    }
    return new RuleNotify(options, { queue, rules, channels, bounds, addDeadLetter })
  } catch (error) {
    if (channels) closeChannels(channels)
    await store.close()
    throw error
  }
}

/** The bounds of what waits for the rule with a key. */
function entryBounds(rules: readonly Rule[], { waiting }: WebhookBounds): (key: string) => EntryBounds {
  const ofWebhooks = new Map<string, EntryBounds>(
    rules.flatMap(({ key, config: { webhook } }) =>
      webhook === undefined
        ? []
        : [[key, { count: webhook.maxQueued, length: waiting, overhead: eventOverhead }] as const],
    ),
  )
  return key => ofWebhooks.get(key) ?? mailBounds
}

interface NotifyParts {
  readonly queue: NotificationQueue
  readonly rules: readonly Rule[]
  readonly channels: Channels
  readonly bounds: WebhookBounds
  readonly addDeadLetter: (letter: DeadLetter) => Promise<void>
}

class RuleNotify implements Notify {
  readonly #options: NotifyOptions
  readonly #parts: NotifyParts
  readonly #clock: Clock
  readonly #queue: NotificationQueue
  readonly #rules: ReadonlyMap<string, Rule>
  readonly #mailSender: Sender<QueuedMail> | undefined
  /** By key of the rule. */
  readonly #callSenders: ReadonlyMap<string, Sender<QueuedCall>>
  readonly #subscriber: EventSubscriber<FoundEntry> | undefined
  readonly #watch: BrokerWatch | undefined
  /** Resolves when the last operation on the queue has ended. */
  #lastOperation: Promise<unknown> = Promise.resolve()
  #stopTimer: () => void = () => {}
  #stopCursorTimer: () => void = () => {}
  #closing: Promise<void> | undefined

  constructor(options: NotifyOptions, parts: NotifyParts) {
    const { config, hub, isConnected, clock = systemClock, log } = options
    const { queue, channels } = parts
    this.#options = options
    this.#parts = parts
    this.#clock = clock
    this.#queue = queue
    this.#rules = new Map(parts.rules.map(rule => [rule.key, rule]))
    this.#mailSender = channels.mails && this.#mailSenderOf(channels.mails)
    this.#callSenders = new Map([...channels.webhooks].map(([key, channel]) => [key, this.#callSenderOf(key, channel)]))
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
    if (!this.#mailSender && queue.mails.length > 0)
      log.warn(`${queue.mails.length} mails wait until notify.mail is configured again`)
    this.#postSoon()
    this.#wake()
  }

  #mailSenderOf(channel: Channel<QueuedMail>): Sender<QueuedMail> {
    return this.#senderOf(
      channel,
      () => this.#queue.mails,
      mail => this.#queue.done(mail),
    )
  }

  #callSenderOf(key: string, channel: Channel<QueuedCall>): Sender<QueuedCall> {
    const items = (): QueuedCall[] => {
      const call = this.#queue.callOf(key)
      return call ? [call] : []
    }
    return this.#senderOf(channel, items, (call, outcome) =>
      outcome === 'sent' ? this.#queue.callDone(call) : this.#queue.callGivenUp(call),
    )
  }

  #senderOf<T extends QueuedMail | QueuedCall>(
    channel: Channel<T>,
    items: () => readonly T[],
    remove: SenderOptions<T>['remove'],
  ): Sender<T> {
    const { isSender, log } = this.#options
    return new Sender({
      items,
      channel: isSender ? onlyWhile(isSender, channel) : channel,
      remove: (item, outcome) => this.#serialize(() => remove(item, outcome)),
      onDone: () => this.#postSoon(),
      clock: this.#clock,
      log,
    })
  }

  get figures(): NotifyFigures {
    const { counters, mails } = this.#queue
    const ofMails = { sent: 0, failed: 0, retried: 0, ...this.#mailSender?.counters, collected: 0, dropped: 0 }
    for (const [key, { collected, dropped }] of counters) {
      if (webhookName(key) !== undefined) continue
      ofMails.collected += collected
      ofMails.dropped += dropped
    }
    const webhooks = [...this.#callSenders].map(([key, sender]): [string, NotificationFigures] => {
      const waiting = this.#queue.sizeOf(key) + (this.#queue.callOf(key)?.events ?? 0)
      return [webhookName(key) ?? key, { collected: 0, dropped: 0, ...counters.get(key), ...sender.counters, waiting }]
    })
    return { mails: { ...ofMails, waiting: mails.length }, webhooks: new Map(webhooks) }
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
    return this.#parts.rules.flatMap(rule => {
      const entry = applies(rule) ? rule.entryOf(alert) : undefined
      return entry ? [{ rule: rule.key, entry }] : []
    })
  }

  #takeEvent(event: BrokerEvent, alert: Alert): void {
    const found = this.#entries(alert, rule => rule.config.events.includes(event))
    const isAway = event === 'broker-away'
    this.#serialize(() => this.#queue.takeBrokerEvent(found, isAway, this.#clock.now())).then(
      () => this.#postSoon(),
      () => this.#options.log.error(`Failed to store ${event}: no notification of it`),
    )
  }

  /** Composes due mails and calls, and sets a timer for the others. */
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
    this.#wake()
    if (next < Number.POSITIVE_INFINITY) {
      this.#postSoon(Math.max(1, Math.min(next - this.#clock.now(), maxTimer)))
    }
  }

  /** Has the senders send what is due. */
  #wake(): void {
    this.#mailSender?.wake()
    for (const { rule } of this.#queue.calls) this.#callSenders.get(rule)?.wake()
  }

  /** Returns when the next mail or call is due, in milliseconds since 1970. */
  async #post(): Promise<number> {
    await this.#forgetRemovedRules()
    let next = Number.POSITIVE_INFINITY
    for (const rule of this.#rules.values()) {
      const isWebhook = rule.config.webhook !== undefined
      // One call at a time, so that events come in order.
      if (isWebhook && this.#queue.callOf(rule.key)) continue
      const batch = this.#queue.batchOf(rule.key, isWebhook ? callBounds(rule, this.#parts.bounds) : undefined)
      // The number of dropped events goes with the next event.
      if (!batch || (isWebhook && batch.entries.length === 0)) continue
      const now = this.#clock.now()
      const { collect, atMost } = paceOf(rule.config)
      const pace = { first: batch.first, collect: isWebhook && batch.isFull ? 0 : collect, atMost }
      const due = nextDueAt(now, { ...pace, sent: this.#queue.sentOf(rule.key) })
      if (due > now) next = Math.min(next, due)
      else if (isWebhook) await this.#queue.postCall(composeCall(rule, batch, now), now, atMost?.count ?? 0)
      else await this.#postMails(rule, batch, now, atMost?.count ?? 0)
    }
    return next
  }

  async #postMails({ key, name, config }: Rule, batch: Batch, now: number, keep: number): Promise<void> {
    const { mail } = this.#options.config
    const { to = [] } = config
    if (!mail || !this.#hasRoom(to.length, batch.length, mail.maxQueued)) return
    const domain = /@([^>]*)/.exec(mail.from)?.[1] ?? 'localhost'
    const composed = composeMail(batch.entries, batch.more, mail.subjectPrefix)
    const common = { rule: name, to, ...composed, messageId: `<${randomUUID()}@${domain}>`, created: now }
    const mails = to.map(recipient => ({ ...common, recipient }))
    await this.#queue.post(key, mails, now, keep)
  }

  /** Whether `count` further mails of about `length` characters fit into the queue. */
  #hasRoom(count: number, length: number, maxQueued: number): boolean {
    const { maxQueuedLength = 32 * 1024 ** 2 } = this.#options
    const { mails, mailLength } = this.#queue
    // An empty queue takes any number: otherwise a rule with many recipients would never send.
    if (mails.length === 0) return true
    return mails.length + count <= maxQueued && mailLength + count * length <= maxQueuedLength
  }

  /** Removes what was collected by rules that no longer exist, and their calls; mails are sent nevertheless. */
  async #forgetRemovedRules(): Promise<void> {
    const { log } = this.#options
    const { addDeadLetter } = this.#parts
    for (const call of this.#queue.calls) {
      if (this.#rules.has(call.rule)) continue
      const rule = webhookName(call.rule) ?? call.rule
      await addDeadLetter({ rule, reason: 'rule-removed', id: call.id, events: eventsOf(call) })
      await this.#queue.callDone(call)
    }
    for (const key of this.#queue.rules) {
      if (this.#rules.has(key)) continue
      const batch = this.#queue.batchOf(key)
      const rule = webhookName(key)
      if (batch && rule !== undefined) {
        await addDeadLetter({ rule, reason: 'rule-removed', events: batch.entries.map(({ text }) => text) })
      }
      if (batch) log.warn({ rule: rule ?? key }, 'The rule no longer exists: its collected messages are dropped')
      await this.#queue.forget(key)
    }
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
    await Promise.all([this.#mailSender, ...this.#callSenders.values()].map(sender => sender?.close()))
    await this.#writeCursor()
    await this.#lastOperation
    await this.#options.store.close()
  }
}
