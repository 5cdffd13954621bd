import type { Logger } from '../../base/log.js'
import type { ReceiptStore, StoreChange } from '../../receipts/store.js'
import type { Entry } from './rules.js'

/** A mail to one recipient that is to be sent. */
export interface QueuedMail {
  /** Grows from mail to mail. */
  readonly sequence: number
  readonly rule: string
  /** Who gets this copy. */
  readonly recipient: string
  /** Everybody who gets one, as the header says. */
  readonly to: readonly string[]
  readonly subject: string
  readonly text: string
  /** The same for all attempts, so that a mail that was sent twice is known as one. */
  readonly messageId: string
  /** Milliseconds since 1970. */
  readonly created: number
}

/** What a rule has found to say. */
export interface FoundEntry {
  readonly rule: string
  readonly entry: Entry
}

/** What a rule has collected for its next mail. */
export interface Batch {
  readonly entries: readonly Entry[]
  /** How many more there were. */
  readonly more: number
  /** Characters of the texts of `entries`. */
  readonly length: number
  /** When the first came, in milliseconds since 1970. */
  readonly first: number
}

/** What a rule has besides what it has collected. */
interface RuleState {
  readonly more: number
  readonly first: number
  /** When its last mails were made, the oldest first. */
  readonly sent: readonly number[]
}

interface RuleBook {
  state: RuleState
  readonly entries: Map<string, Entry>
  /** Characters of their texts. */
  length: number
}

/** A rule's entries that a mail shows, and the characters of their texts after which it has no more; it says how many came. */
const [maxEntries, maxLength] = [100, 262_144]

const none: RuleState = { more: 0, first: 0, sent: [] }

/**
 * What is known of mails to be sent, in memory, and in a store as soon as anybody counts on it. Calls come one after
 * the other; one that rejects has changed nothing.
 */
export class MailQueue {
  /** What rules have found since the start, and of that, what a mail has only the number of. */
  readonly counters = { collected: 0, dropped: 0 }
  readonly #store: ReceiptStore
  readonly #log: Logger
  readonly #rules = new Map<string, RuleBook>()
  readonly #mails = new Map<number, QueuedMail>()
  #cursor: string | undefined
  #last = 0
  #mailLength = 0
  #isFailing = false

  private constructor(store: ReceiptStore, log: Logger) {
    this.#store = store
    this.#log = log
  }

  /** Reads a store. */
  static async open(store: ReceiptStore, log: Logger): Promise<MailQueue> {
    const book = new MailQueue(store, log)
    book.#cursor = await store.get('cursor')
    for await (const [key, value] of allOf(store, 'rule/')) {
      book.#ruleOf(key.slice('rule/'.length)).state = JSON.parse(value)
    }
    for await (const [key, value] of allOf(store, 'entry/')) {
      const [, rule = '', sequence] = key.split('/')
      book.#keep(book.#ruleOf(rule), key, JSON.parse(value))
      book.#last = Math.max(book.#last, Number(sequence))
    }
    for await (const [, value] of allOf(store, 'mail/')) {
      const mail: QueuedMail = JSON.parse(value)
      book.#queue(mail)
      book.#last = Math.max(book.#last, mail.sequence)
    }
    return book
  }

  /** Where to go on listening; `undefined` before there was anything. */
  get cursor(): string | undefined {
    return this.#cursor
  }

  /** The rules of which something is kept. */
  get rules(): readonly string[] {
    return [...this.#rules.keys()]
  }

  /** The mails to be sent, the oldest first. */
  get mails(): readonly QueuedMail[] {
    return [...this.#mails.values()]
  }

  /** Characters of their texts, together. */
  get mailLength(): number {
    return this.#mailLength
  }

  /** What a rule has collected; `undefined` for nothing. */
  batchOf(rule: string): Batch | undefined {
    const { entries, length, state } = this.#ruleOf(rule)
    if (entries.size + state.more === 0) return undefined
    return { entries: [...entries.values()], more: state.more, length, first: state.first }
  }

  /** When a rule's last mails were made, the oldest first. */
  sentOf(rule: string): readonly number[] {
    return this.#ruleOf(rule).state.sent
  }

  /** Collects what happened, and goes on from `cursor`, in one step. */
  async take(found: readonly FoundEntry[], cursor: string | undefined, now: number): Promise<void> {
    const changes: StoreChange[] = []
    const added: [RuleBook, string, Entry][] = []
    const rules = new Map<string, { readonly count: number; readonly length: number; readonly state: RuleState }>()
    let last = this.#last
    for (const { rule, entry } of found) {
      const book = this.#ruleOf(rule)
      const { count, length, state } = rules.get(rule) ?? { ...book, count: book.entries.size }
      const first = count + state.more === 0 ? now : state.first
      if (count >= maxEntries || length >= maxLength) {
        rules.set(rule, { count, length, state: { ...state, first, more: state.more + 1 } })
        continue
      }
      const key = `entry/${rule}/${padded(++last)}`
      rules.set(rule, { count: count + 1, length: length + entry.text.length, state: { ...state, first } })
      added.push([book, key, entry])
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
    for (const [book, key, entry] of added) this.#keep(book, key, entry)
    for (const [rule, { state }] of rules) this.#ruleOf(rule).state = state
    this.counters.collected += found.length
    this.counters.dropped += found.length - added.length
  }

  /** Makes mails of all that a rule has collected, in one step. @param keep how many times of mails to remember */
  async post(rule: string, mails: readonly Omit<QueuedMail, 'sequence'>[], now: number, keep: number): Promise<void> {
    const book = this.#ruleOf(rule)
    const queued = mails.map((mail, index) => ({ ...mail, sequence: this.#last + 1 + index }))
    const state = { more: 0, first: 0, sent: [...book.state.sent, now].slice(-keep) }
    await this.#write([
      ...[...book.entries.keys()].map(key => ({ type: 'del' as const, key })),
      ...queued.map(mail => ({ type: 'put' as const, key: mailKey(mail.sequence), value: JSON.stringify(mail) })),
      { type: 'put', key: `rule/${rule}`, value: JSON.stringify(state) },
    ])
    this.#last += queued.length
    book.entries.clear()
    book.length = 0
    book.state = state
    for (const mail of queued) this.#queue(mail)
  }

  /** Is done with a mail, for better or worse. */
  async done({ sequence, text }: QueuedMail): Promise<void> {
    await this.#write([{ type: 'del', key: mailKey(sequence) }])
    if (this.#mails.delete(sequence)) this.#mailLength -= text.length
  }

  /** Forgets a rule, with what it has collected. */
  async forget(rule: string): Promise<void> {
    const keys = [...this.#ruleOf(rule).entries.keys(), `rule/${rule}`]
    await this.#write(keys.map(key => ({ type: 'del', key })))
    this.#rules.delete(rule)
  }

  #keep(book: RuleBook, key: string, entry: Entry): void {
    book.entries.set(key, entry)
    book.length += entry.text.length
  }

  #queue(mail: QueuedMail): void {
    this.#mails.set(mail.sequence, mail)
    this.#mailLength += mail.text.length
  }

  /** Says once that it does not work, however often it is tried. */
  async #write(changes: readonly StoreChange[]): Promise<void> {
    try {
      await this.#store.batch(changes)
    } catch (error) {
      if (!this.#isFailing) this.#log.error({ err: error }, 'what mails are to be sent of cannot be written down')
      this.#isFailing = true
      throw error
    }
    if (this.#isFailing) this.#log.info('what mails are to be sent of can be written down again')
    this.#isFailing = false
  }

  #ruleOf(name: string): RuleBook {
    let book = this.#rules.get(name)
    if (!book) {
      book = { state: none, entries: new Map(), length: 0 }
      this.#rules.set(name, book)
    }
    return book
  }
}

function padded(sequence: number): string {
  return String(sequence).padStart(16, '0')
}

function mailKey(sequence: number): string {
  return `mail/${padded(sequence)}`
}

const portion = 256

async function* allOf(store: ReceiptStore, prefix: string): AsyncGenerator<readonly [string, string], void, void> {
  const lt = `${prefix}\x7f`
  for (let gte = prefix; ; ) {
    const found = await store.range({ gte, lt }, portion)
    yield* found
    const last = found.at(-1)
    if (!last || found.length < portion) return
    gte = `${last[0]}\0`
  }
}
