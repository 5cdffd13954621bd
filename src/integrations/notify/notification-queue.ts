import type { Logger } from '../../base/log.js'
import { BatchedStore } from '../../receipts/batched-store.js'
import { type Store, type StoreChange, StoreClosed } from '../../storage/store.js'
import type { Entry } from './rules.js'

/** The common fields of mails and calls. */
export interface QueuedItem {
  /** Ascending. */
  readonly sequence: number
  /** Key of its rule. */
  readonly rule: string
  /** The text of a mail, or the body of a call. */
  readonly text: string
  /** When the time for its attempts begins, in milliseconds since 1970. */
  readonly created: number
}

/** A mail to one recipient that is not sent yet. */
export interface QueuedMail extends QueuedItem {
  /** The recipient of this copy. */
  readonly recipient: string
  /** All recipients, for the header. */
  readonly to: readonly string[]
  readonly subject: string
  /** The same for all attempts, so that a mail server recognizes duplicates. */
  readonly messageId: string
}

/** A call of a webhook that is not accepted yet. */
export interface QueuedCall extends QueuedItem {
  /** The same for all attempts, so that a receiver recognizes duplicates. */
  readonly id: string
  /** Number of its events. */
  readonly events: number
  /** Number of dropped events that it tells the receiver. */
  readonly dropped: number
}

/** An entry for the next mail or call of a rule. */
export interface FoundEntry {
  /** Key of the rule. */
  readonly rule: string
  readonly entry: Entry
}

/** Bounds of entries: their number, and the characters of their texts. */
export interface EntryBounds {
  readonly count: number
  readonly length: number
  /** Characters that count for each entry besides its text. Default: 0. */
  readonly overhead?: number
}

/** The oldest entries of a rule. */
export interface Batch {
  readonly entries: readonly Entry[]
  /** Number of dropped entries. */
  readonly more: number
  /** Characters of the texts of `entries`. */
  readonly length: number
  /** Time of the first event, in milliseconds since 1970. */
  readonly first: number
  /** Whether the batch has as many entries as it may have. */
  readonly isFull: boolean
}

/** Stored state of a rule besides its entries. */
interface RuleState {
  readonly more: number
  readonly first: number
  /** Times of its last mails or calls, oldest first. */
  readonly sent: readonly number[]
}

interface RuleEntries {
  state: RuleState
  readonly entries: Map<string, Entry>
  /** Characters of their texts. */
  length: number
}

/** Events of a rule since the start, and those of them that were dropped. */
export interface RuleCounters {
  collected: number
  dropped: number
}

export interface NotificationQueueOptions {
  readonly store: Store
  /** Bounds of the entries of a rule; beyond, they are dropped, and only counted. */
  readonly boundsOf: (rule: string) => EntryBounds
  /** Told of dropped entries, before anything is stored. */
  readonly onDropped?: (dropped: readonly FoundEntry[]) => Promise<void>
  readonly log: Logger
}

/** Is there while the last event of the broker is `broker-away`. */
const brokerAwayKey = 'broker-away'

const none: RuleState = { more: 0, first: 0, sent: [] }

const unlimited: EntryBounds = { count: Number.POSITIVE_INFINITY, length: Number.POSITIVE_INFINITY }

/**
 * Collected entries, unsent mails and unaccepted calls, in memory and in a store. Callers serialize calls; a call that rejects has
 * changed nothing.
 */
export class NotificationQueue {
  readonly #options: NotificationQueueOptions
  readonly #rules = new Map<string, RuleEntries>()
  readonly #counters = new Map<string, RuleCounters>()
  readonly #mails = new Map<number, QueuedMail>()
  /** By rule. */
  readonly #calls = new Map<string, QueuedCall>()
  #cursor: string | undefined
  #isBrokerAway = false
  #last = 0
  #mailLength = 0
  #isFailing = false
  /** Entries of which the dropped ones are told, but which are not stored: they are taken again. */
  #told: readonly FoundEntry[] | undefined

  private constructor(options: NotificationQueueOptions) {
    this.#options = options
  }

  /** Reads a store. */
  static async open(options: NotificationQueueOptions): Promise<NotificationQueue> {
    const { store } = options
    const queue = new NotificationQueue(options)
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
    for await (const [, value] of entriesOf(store, 'mail/')) queue.#addMail(JSON.parse(value))
    for await (const [, value] of entriesOf(store, 'call/')) queue.#addCall(JSON.parse(value))
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

  /** Keys of the rules with stored state. */
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

  /** Unaccepted calls: at most one of each rule. */
  get calls(): readonly QueuedCall[] {
    return [...this.#calls.values()]
  }

  /** The unaccepted call of a rule. */
  callOf(rule: string): QueuedCall | undefined {
    return this.#calls.get(rule)
  }

  /** Counts of the rules that had events since the start. */
  get counters(): ReadonlyMap<string, RuleCounters> {
    return this.#counters
  }

  /** Number of entries of a rule. */
  sizeOf(rule: string): number {
    return this.#rules.get(rule)?.entries.size ?? 0
  }

  /** The oldest entries of a rule within bounds, at least one; `undefined` for none. */
  batchOf(rule: string, { count, length: maxLength }: EntryBounds = unlimited): Batch | undefined {
    const { entries: all, state } = this.#ruleOf(rule)
    if (all.size + state.more === 0) return undefined
    const entries: Entry[] = []
    let length = 0
    for (const entry of all.values()) {
      if (entries.length === count || (entries.length > 0 && length + entry.text.length > maxLength)) break
      entries.push(entry)
      length += entry.text.length
    }
    const isFull = entries.length === count || entries.length < all.size
    return { entries, more: state.more, length, first: state.first, isFull }
  }

  /** Times of a rule's last mails or calls, oldest first. */
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
    const dropped: FoundEntry[] = []
    const rules = new Map<string, { readonly count: number; readonly length: number; readonly state: RuleState }>()
    let last = this.#last
    for (const one of found) {
      const { rule, entry } = one
      const collected = this.#ruleOf(rule)
      const { count, length, state } = rules.get(rule) ?? { ...collected, count: collected.entries.size }
      const first = count === 0 ? now : state.first
      const bounds = this.#options.boundsOf(rule)
      const needed = length + entry.text.length + (count + 1) * (bounds.overhead ?? 0)
      if (count >= bounds.count || needed > bounds.length) {
        rules.set(rule, { count, length, state: { ...state, first, more: state.more + 1 } })
        dropped.push(one)
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
    if (dropped.length > 0 && this.#told !== found) {
      await this.#options.onDropped?.(dropped)
      this.#told = found
    }
    await this.#write(changes)
    this.#told = undefined
    this.#last = last
    this.#cursor = cursor ?? this.#cursor
    for (const [collected, key, entry] of added) this.#addEntry(collected, key, entry)
    for (const [rule, { state }] of rules) this.#ruleOf(rule).state = state
    for (const { rule } of found) this.#countersOf(rule).collected++
    for (const { rule } of dropped) this.#countersOf(rule).dropped++
  }

  /** Replaces the collected entries of a rule by mails, atomically. @param keep number of mail times to remember */
  async post(rule: string, mails: readonly Omit<QueuedMail, 'sequence'>[], now: number, keep: number): Promise<void> {
    const queued = mails.map((mail, index) => ({ ...mail, sequence: this.#last + 1 + index }))
    await this.#replace(rule, this.sizeOf(rule), queued, 'mail', now, keep)
    for (const mail of queued) this.#addMail(mail)
  }

  /**
   * Replaces the oldest `call.events` entries of its rule, which has no other call, by a call, atomically.
   *
   * @param keep number of call times to remember
   */
  async postCall(call: Omit<QueuedCall, 'sequence'>, now: number, keep: number): Promise<void> {
    const queued = { ...call, sequence: this.#last + 1 }
    await this.#replace(call.rule, call.events, [queued], 'call', now, keep)
    this.#addCall(queued)
  }

  /** Replaces the oldest `count` entries of a rule by items. */
  async #replace(
    rule: string,
    count: number,
    items: readonly QueuedItem[],
    kind: ItemKind,
    now: number,
    keep: number,
  ): Promise<void> {
    const collected = this.#ruleOf(rule)
    const keys: string[] = []
    for (const key of collected.entries.keys()) {
      if (keys.length === count) break
      keys.push(key)
    }
    const { first, sent } = collected.state
    const state = {
      more: 0,
      first: count < collected.entries.size ? first : 0,
      sent: keep === 0 ? [] : [...sent, now].slice(-keep),
    }
    await this.#write([
      ...keys.map(key => ({ type: 'del' as const, key })),
      ...items.map(item => ({ type: 'put' as const, key: itemKey(kind, item), value: JSON.stringify(item) })),
      { type: 'put', key: `rule/${rule}`, value: JSON.stringify(state) },
    ])
    for (const key of keys) {
      collected.length -= collected.entries.get(key)?.text.length ?? 0
      collected.entries.delete(key)
    }
    collected.state = state
  }

  /** Removes a mail that was sent or given up. */
  async done(mail: QueuedMail): Promise<void> {
    await this.#write([{ type: 'del', key: itemKey('mail', mail) }])
    if (this.#mails.delete(mail.sequence)) this.#mailLength -= mail.text.length
  }

  /** Removes an accepted call. */
  async callDone(call: QueuedCall): Promise<void> {
    await this.#write([{ type: 'del', key: itemKey('call', call) }])
    this.#calls.delete(call.rule)
  }

  /** Removes a call that was given up; its events are dropped. */
  async callGivenUp(call: QueuedCall): Promise<void> {
    const collected = this.#ruleOf(call.rule)
    const state = { ...collected.state, more: collected.state.more + call.events + call.dropped }
    await this.#write([
      { type: 'del', key: itemKey('call', call) },
      { type: 'put', key: `rule/${call.rule}`, value: JSON.stringify(state) },
    ])
    collected.state = state
    this.#calls.delete(call.rule)
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
    this.#last = Math.max(this.#last, mail.sequence)
  }

  #addCall(call: QueuedCall): void {
    this.#calls.set(call.rule, call)
    this.#last = Math.max(this.#last, call.sequence)
  }

  /** Logs the first of several failures in a row. */
  async #write(changes: readonly StoreChange[]): Promise<void> {
    const { store, log } = this.#options
    try {
      await store.batch(changes)
    } catch (error) {
      if (error instanceof StoreClosed) throw error
      if (!this.#isFailing) log.error({ err: error }, 'Failed to store mails and webhook calls')
      this.#isFailing = true
      throw error
    }
    if (this.#isFailing) log.info('Mails and webhook calls are stored again')
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

  #countersOf(rule: string): RuleCounters {
    let counters = this.#counters.get(rule)
    if (!counters) {
      counters = { collected: 0, dropped: 0 }
      this.#counters.set(rule, counters)
    }
    return counters
  }
}

type ItemKind = 'mail' | 'call'

function sequenceKey(sequence: number): string {
  return String(sequence).padStart(16, '0')
}

function itemKey(kind: ItemKind, { sequence }: QueuedItem): string {
  return `${kind}/${sequenceKey(sequence)}`
}

function entriesOf(store: Store, prefix: string): AsyncGenerator<readonly [string, string]> {
  return new BatchedStore(store).all({ gte: prefix, lt: `${prefix}\x7f` })
}
