import type { Logger } from '../../base/log.js'
import { BatchedStore } from '../../receipts/batched-store.js'
import { type Store, type StoreChange, StoreClosed } from '../../storage/store.js'
import type { Entry } from './rules.js'

/** A mail to one recipient that is not sent yet. */
export interface QueuedMail {
  /** Ascending. */
  readonly sequence: number
  readonly rule: string
  /** The recipient of this copy. */
  readonly recipient: string
  /** All recipients, for the header. */
  readonly to: readonly string[]
  readonly subject: string
  readonly text: string
  /** The same for all attempts, so that a mail server recognizes duplicates. */
  readonly messageId: string
  /** Milliseconds since 1970. */
  readonly created: number
}

/** An entry for the next mail of a rule. */
export interface FoundEntry {
  readonly rule: string
  readonly entry: Entry
}

/** The collected entries of a rule. */
export interface Batch {
  readonly entries: readonly Entry[]
  /** Number of further events. */
  readonly more: number
  /** Characters of the texts of `entries`. */
  readonly length: number
  /** Time of the first event, in milliseconds since 1970. */
  readonly first: number
}

/** Stored state of a rule besides its entries. */
interface RuleState {
  readonly more: number
  readonly first: number
  /** Times of its last mails, oldest first. */
  readonly sent: readonly number[]
}

interface RuleEntries {
  state: RuleState
  readonly entries: Map<string, Entry>
  /** Characters of their texts. */
  length: number
}

/** Bounds of a rule's entries, in number and characters; beyond, a mail has only their number. */
const [maxEntries, maxLength] = [100, 262_144]

/** Is there while the last event of the broker is `broker-away`. */
const brokerAwayKey = 'broker-away'

const none: RuleState = { more: 0, first: 0, sent: [] }

/**
 * Collected entries and unsent mails, in memory and in a store. Callers serialize calls; a call that rejects has changed
 * nothing.
 */
export class MailQueue {
  /** Events since the start, and those of which a mail has only the number. */
  readonly counters = { collected: 0, dropped: 0 }
  readonly #store: Store
  readonly #log: Logger
  readonly #rules = new Map<string, RuleEntries>()
  readonly #mails = new Map<number, QueuedMail>()
  #cursor: string | undefined
  #isBrokerAway = false
  #last = 0
  #mailLength = 0
  #isFailing = false

  private constructor(store: Store, log: Logger) {
    this.#store = store
    this.#log = log
  }

  /** Reads a store. */
  static async open(store: Store, log: Logger): Promise<MailQueue> {
    const queue = new MailQueue(store, log)
    queue.#cursor = await store.get('cursor')
    queue.#isBrokerAway = (await store.get(brokerAwayKey)) !== undefined
    for await (const [key, value] of entriesOf(store, 'rule/')) {
      queue.#ruleOf(key.slice('rule/'.length)).state = JSON.parse(value)
    }
    for await (const [key, value] of entriesOf(store, 'entry/')) {
      const [, rule = '', sequence] = key.split('/')
      queue.#addEntry(queue.#ruleOf(rule), key, JSON.parse(value))
      queue.#last = Math.max(queue.#last, Number(sequence))
    }
    for await (const [, value] of entriesOf(store, 'mail/')) {
      const mail: QueuedMail = JSON.parse(value)
      queue.#addMail(mail)
      queue.#last = Math.max(queue.#last, mail.sequence)
    }
    return queue
  }

  /** The position to continue from; `undefined` before the first event. */
  get cursor(): string | undefined {
    return this.#cursor
  }

  /** Whether the last event of the broker is `broker-away`. */
  get isBrokerAway(): boolean {
    return this.#isBrokerAway
  }

  /** The rules with stored state. */
  get rules(): readonly string[] {
    return [...this.#rules.keys()]
  }

  /** Unsent mails, oldest first. */
  get mails(): readonly QueuedMail[] {
    return [...this.#mails.values()]
  }

  /** Characters of their texts, together. */
  get mailLength(): number {
    return this.#mailLength
  }

  /** The collected entries of a rule; `undefined` for none. */
  batchOf(rule: string): Batch | undefined {
    const { entries, length, state } = this.#ruleOf(rule)
    if (entries.size + state.more === 0) return undefined
    return { entries: [...entries.values()], more: state.more, length, first: state.first }
  }

  /** Times of a rule's last mails, oldest first. */
  sentOf(rule: string): readonly number[] {
    return this.#ruleOf(rule).state.sent
  }

  /** Adds the entries of an event of the broker, atomically. */
  async takeBrokerEvent(found: readonly FoundEntry[], isAway: boolean, now: number): Promise<void> {
    const change: StoreChange = isAway
      ? { type: 'put', key: brokerAwayKey, value: '' }
      : { type: 'del', key: brokerAwayKey }
    await this.#take(found, undefined, now, [change])
    this.#isBrokerAway = isAway
  }

  /** Adds entries and moves the cursor, atomically. */
  take(found: readonly FoundEntry[], cursor: string | undefined, now: number): Promise<void> {
    return this.#take(found, cursor, now, [])
  }

  async #take(
    found: readonly FoundEntry[],
    cursor: string | undefined,
    now: number,
    changes: StoreChange[],
  ): Promise<void> {
    const added: [RuleEntries, string, Entry][] = []
    const rules = new Map<string, { readonly count: number; readonly length: number; readonly state: RuleState }>()
    let last = this.#last
    for (const { rule, entry } of found) {
      const collected = this.#ruleOf(rule)
      const { count, length, state } = rules.get(rule) ?? { ...collected, count: collected.entries.size }
      const first = count + state.more === 0 ? now : state.first
      if (count >= maxEntries || length >= maxLength) {
        rules.set(rule, { count, length, state: { ...state, first, more: state.more + 1 } })
        continue
      }
      const key = `entry/${rule}/${sequenceKey(++last)}`
      rules.set(rule, { count: count + 1, length: length + entry.text.length, state: { ...state, first } })
      added.push([collected, key, entry])
      changes.push({ type: 'put', key, value: JSON.stringify(entry) })
    }
    for (const [rule, { state }] of rules) {
      changes.push({ type: 'put', key: `rule/${rule}`, value: JSON.stringify(state) })
    }
    if (cursor !== undefined && cursor !== this.#cursor) changes.push({ type: 'put', key: 'cursor', value: cursor })
    if (changes.length === 0) return
    await this.#write(changes)
    this.#last = last
    this.#cursor = cursor ?? this.#cursor
    for (const [collected, key, entry] of added) this.#addEntry(collected, key, entry)
    for (const [rule, { state }] of rules) this.#ruleOf(rule).state = state
    this.counters.collected += found.length
    this.counters.dropped += found.length - added.length
  }

  /** Replaces the collected entries of a rule by mails, atomically. @param keep number of mail times to remember */
  async post(rule: string, mails: readonly Omit<QueuedMail, 'sequence'>[], now: number, keep: number): Promise<void> {
    const collected = this.#ruleOf(rule)
    const queued = mails.map((mail, index) => ({ ...mail, sequence: this.#last + 1 + index }))
    const state = { more: 0, first: 0, sent: [...collected.state.sent, now].slice(-keep) }
    await this.#write([
      ...[...collected.entries.keys()].map(key => ({ type: 'del' as const, key })),
      ...queued.map(mail => ({ type: 'put' as const, key: mailKey(mail.sequence), value: JSON.stringify(mail) })),
      { type: 'put', key: `rule/${rule}`, value: JSON.stringify(state) },
    ])
    this.#last += queued.length
    collected.entries.clear()
    collected.length = 0
    collected.state = state
    for (const mail of queued) this.#addMail(mail)
  }

  /** Removes a mail that was sent or given up. */
  async done({ sequence, text }: QueuedMail): Promise<void> {
    await this.#write([{ type: 'del', key: mailKey(sequence) }])
    if (this.#mails.delete(sequence)) this.#mailLength -= text.length
  }

  /** Removes a rule with its entries. */
  async forget(rule: string): Promise<void> {
    const keys = [...this.#ruleOf(rule).entries.keys(), `rule/${rule}`]
    await this.#write(keys.map(key => ({ type: 'del', key })))
    this.#rules.delete(rule)
  }

  #addEntry(collected: RuleEntries, key: string, entry: Entry): void {
    collected.entries.set(key, entry)
    collected.length += entry.text.length
  }

  #addMail(mail: QueuedMail): void {
    this.#mails.set(mail.sequence, mail)
    this.#mailLength += mail.text.length
  }

  /** Logs the first of several failures in a row. */
  async #write(changes: readonly StoreChange[]): Promise<void> {
    try {
      await this.#store.batch(changes)
    } catch (error) {
      if (error instanceof StoreClosed) throw error
      if (!this.#isFailing) this.#log.error({ err: error }, 'Failed to store mails')
      this.#isFailing = true
      throw error
    }
    if (this.#isFailing) this.#log.info('Mails are stored again')
    this.#isFailing = false
  }

  #ruleOf(name: string): RuleEntries {
    let collected = this.#rules.get(name)
    if (!collected) {
      collected = { state: none, entries: new Map(), length: 0 }
      this.#rules.set(name, collected)
    }
    return collected
  }
}

function sequenceKey(sequence: number): string {
  return String(sequence).padStart(16, '0')
}

function mailKey(sequence: number): string {
  return `mail/${sequenceKey(sequence)}`
}

function entriesOf(store: Store, prefix: string): AsyncGenerator<readonly [string, string]> {
  return new BatchedStore(store).all({ gte: prefix, lt: `${prefix}\x7f` })
}
