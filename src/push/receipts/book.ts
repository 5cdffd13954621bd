import type { Receipt, ReceiptReport, ReceiptRequest, ReceiptStatus, ReportOptions } from '../receipts.js'
import { levelsOf } from '../topics.js'
import { Awaited, type AwaitedEvent } from './awaited.js'
import {
  type AskedRecord,
  allOf,
  type BookState,
  before,
  currentForm,
  firstOf,
  forgottenKinds,
  keyOf,
  type MessageRecord,
  type OrderRecord,
  type ReceiptRecord,
  type RequestRecord,
  secondOf,
  stateKey,
} from './records.js'
import type { KeyRange, ReceiptStore, StoreChange } from './store.js'

/** Bounds of what is kept. */
export interface ReceiptBounds {
  /** How many receipts there may be, and how many may be wanted; the oldest receipts go first. */
  readonly maxReceipts: number
  /** Of how many events receipts may be wanted. */
  readonly maxRequests: number
  /** Messages that may wait for the broker; the oldest go first. */
  readonly maxMessages: number
  /** Asked before each message about a receipt that nobody waits for; there are any number where it is left out. */
  readonly mayTell?: (() => boolean) | undefined
  /** How large a topic the broker takes: a larger one could end the session that all publish with. In bytes. */
  readonly topic: { readonly levels: number; readonly length: number }
}

/** An event, as far as receipts are about it. */
export interface ReceiptEvent {
  readonly id: string
  readonly sequence: number
  readonly topic: string
  readonly time: number
}

/** A message that waits to be published. */
export interface WaitingMessage extends MessageRecord {
  readonly key: string
}

/** What is read, or let go of, in one go. */
const portion = 256
/** Devices that one message names, and UTF-16 units of theirs, so that it stays far below what brokers take. */
const [devicesPerMessage, textPerMessage] = [500, 32 * 1024]
/** Changes of one batch when what is old is forgotten: they are written in one go. */
const enoughChanges = 5000

const topicPrefix = 'receipts/'

/** How far a status is. */
const ranks: Readonly<Record<ReceiptStatus, number>> = { received: 0, processed: 1, failed: 1 }

/** Whether what is said adds to what is known: it goes further, or is proven where that was not, and is not less so. */
function isFurther({ status, user }: Omit<Receipt, 'time' | 'device'>, known: ReceiptRecord): boolean {
  const isProven = user !== undefined
  if (isProven !== (known.user !== undefined)) return isProven
  return ranks[status] > ranks[known.status]
}

/**
 * All that is known of receipts, in a store. One call after the other: none of them may be made while another runs. What
 * a call that rejects has changed is not known, until `load` is called.
 */
export class ReceiptBook {
  readonly #store: ReceiptStore
  readonly #epoch: string
  readonly #bounds: ReceiptBounds
  /** How many messages were let go of because too many waited. */
  dropped = 0
  /** How many receipts that nobody waits for were not told, as there were too many. */
  untold = 0
  /** What is waited for; whoever makes room for more counts it here until it is in the book. */
  readonly awaited: Awaited
  #state: BookState
  /** Events whose deadline is to come. */
  readonly #pending = new Map<number, AwaitedEvent>()
  /** Changes of the batch that is being made. */
  #changes: StoreChange[] = []

  constructor(store: ReceiptStore, epoch: string, bounds: ReceiptBounds) {
    this.#store = store
    this.#epoch = epoch
    this.#bounds = bounds
    this.awaited = new Awaited(bounds)
    this.#state = emptyState(epoch)
  }

  /** How many messages wait to be published. */
  get messages(): number {
    return this.#state.messages
  }

  /** Whether the deadline of an event is to come. */
  isPending(sequence: number): boolean {
    return this.#pending.has(sequence)
  }

  /**
   * Reads what is in the store. What is of another epoch is forgotten with its events, and so is what has another form;
   * messages that wait are not.
   *
   * @returns how many events whose deadline was to come were forgotten
   */
  async load(): Promise<number> {
    this.#changes = []
    this.#forgetPending()
    const text = await this.#store.get(stateKey)
    const state: BookState = text === undefined ? emptyState(this.#epoch) : JSON.parse(text)
    this.#state = state
    const isKnown = state.epoch === this.#epoch && state.form === currentForm
    let lost = 0
    for await (const [key, value] of this.#all(allOf('d'))) {
      if (isKnown) this.#await(Number(secondOf(key)), JSON.parse(value))
      else lost++
    }
    if (isKnown) return 0
    for (const kind of forgottenKinds) await this.#store.clear(allOf(kind))
    const { messages, message } = state
    await this.#commit({ ...emptyState(this.#epoch), messages, message })
    return lost
  }

  #await(sequence: number, event: AwaitedEvent): void {
    this.#pending.set(sequence, event)
    this.awaited.add(event)
  }

  #forgetPending(): void {
    for (const event of this.#pending.values()) this.awaited.remove(event)
    this.#pending.clear()
  }

  /** The requests whose deadline is to come, each with the devices to which its event has not been written. */
  async *pending(): AsyncGenerator<{
    readonly request: RequestRecord
    readonly sequence: number
    unwritten: string[]
  }> {
    for (const sequence of this.#pending.keys()) {
      const request = await this.requestOf(sequence)
      if (!request) continue
      const written = new Set(await this.#devices('w', sequence))
      const asked = await this.#devices('k', sequence)
      yield { request, sequence, unwritten: asked.filter(device => !written.has(device)) }
    }
  }

  async requestOf(sequence: number): Promise<RequestRecord | undefined> {
    return this.#read<RequestRecord>(keyOf('q', sequence))
  }

  /** Notes what a device says of an event, as `Receipts.record`. */
  async record(
    event: ReceiptEvent,
    said: Omit<Receipt, 'time'>,
    time: number,
  ): Promise<{ readonly receipt: Receipt; readonly fresh: boolean }> {
    const { device, status, detail, user } = said
    const key = keyOf('r', event.sequence, device)
    const known = await this.#read<ReceiptRecord>(key)
    if (known && !isFurther(said, known)) return { receipt: receiptOf(device, known), fresh: false }
    let state = this.#state
    const record: ReceiptRecord = { order: known?.order ?? state.order, status, time, detail, user }
    this.#put(key, record)
    if (!known) {
      this.#put(keyOf('o', record.order), [event.sequence, device] satisfies OrderRecord)
      state = { ...state, receipts: state.receipts + 1, order: state.order + 1 }
      state = await this.#dropOldest(state)
    }
    const { id, topic } = event
    const told = { type: 'receipt', id, topic, device, user, status, time: iso(time), detail }
    const isAwaited = await this.#isAwaited(event.sequence, device)
    if (isAwaited || this.#mayTell(state)) state = this.#tell(state, topic, told, `${id} ${device}`)
    else this.untold++
    await this.#commit(await this.#dropMessages(state))
    return { receipt: receiptOf(device, record), fresh: true }
  }

  /** Whether somebody waits for a device's receipt. */
  async #isAwaited(sequence: number, device: string): Promise<boolean> {
    return this.#pending.has(sequence) && (await this.#store.get(keyOf('k', sequence, device))) !== undefined
  }

  /** Whether a receipt that nobody waits for is told: those that are waited for find room among the messages. */
  #mayTell({ messages }: BookState): boolean {
    const { maxMessages, mayTell } = this.#bounds
    return messages < maxMessages / 2 && mayTell?.() !== false
  }

  /** Lets go of the oldest receipts, where there are too many. Who has answered before the deadline is remembered. */
  async #dropOldest(state: BookState): Promise<BookState> {
    const over = state.receipts - this.#bounds.maxReceipts
    if (over <= 0) return state
    for (const [key, value] of await this.#store.range(allOf('o'), Math.min(over, portion))) {
      const [sequence, device]: OrderRecord = JSON.parse(value)
      this.#delete(key)
      this.#delete(keyOf('r', sequence, device))
      if (await this.#isAwaited(sequence, device)) {
        this.#put(keyOf('k', sequence, device), true satisfies AskedRecord)
      }
      state = { ...state, receipts: state.receipts - 1 }
    }
    return state
  }

  /**
   * Wants receipts of an event from now on; nothing happens where that is so already.
   *
   * @returns whether it was new
   */
  async request(event: ReceiptEvent, { from, by, devices, deadline }: NewRequest): Promise<boolean> {
    const { id, sequence, topic, time } = event
    if (await this.requestOf(sequence)) return false
    const asked = devices.length
    const state = await this.#makeRoom(asked)
    const awaited: AwaitedEvent = { by, devices: asked }
    this.#put(keyOf('q', sequence), { id, topic, time, from, asked, deadline, closed: false } satisfies RequestRecord)
    this.#put(keyOf('d', deadline, sequence), awaited)
    for (const device of devices) this.#put(keyOf('k', sequence, device), false satisfies AskedRecord)
    await this.#commit({ ...state, requests: state.requests + 1, asked: state.asked + asked })
    this.#await(sequence, awaited)
    return true
  }

  /** Forgets the oldest requests of which all is known, where there are too many; those that are awaited leave room. */
  async #makeRoom(devices: number): Promise<BookState> {
    const { maxRequests, maxReceipts } = this.#bounds
    let state = this.#state
    const isFull = (): boolean => state.requests >= maxRequests || state.asked + devices > maxReceipts
    if (!isFull()) return state
    for await (const [key] of this.#all(allOf('f'))) {
      state = await this.#dropRequest(state, key)
      if (!isFull()) break
    }
    return state
  }

  /** @param key of the kind `f` */
  async #dropRequest(state: BookState, key: string): Promise<BookState> {
    const sequence = Number(secondOf(key))
    const request = await this.requestOf(sequence)
    this.#delete(key)
    this.#delete(keyOf('q', sequence))
    for (const kind of ['k', 'w'] as const) {
      for await (const [device] of this.#all(allOf(kind, sequence))) this.#delete(device)
    }
    return { ...state, requests: state.requests - 1, asked: state.asked - (request?.asked ?? 0) }
  }

  /** Notes that an event was written to the connections of devices that were asked. */
  async wrote(written: ReadonlyMap<number, Iterable<string>>): Promise<void> {
    for (const [sequence, devices] of written) {
      if (!this.#pending.has(sequence)) continue
      for (const device of devices) this.#put(keyOf('w', sequence, device), '')
    }
    if (this.#changes.length > 0) await this.#commit(this.#state)
  }

  /** The nearest deadline that is to come. */
  async nextDeadline(): Promise<number | undefined> {
    const [first] = await this.#store.range(allOf('d'), 1)
    return first && firstOf(first[0])
  }

  /** Notes who has missed a deadline that is not after `now`, and returns the event; `undefined` where there is none. */
  async expireNext(now: number): Promise<number | undefined> {
    const [first] = await this.#store.range(before('d', now + 1), 1)
    if (!first) return undefined
    const [key] = first
    const sequence = Number(secondOf(key))
    const request = await this.requestOf(sequence)
    this.#delete(key)
    let state = this.#state
    if (request) {
      const missed = await this.#closeAsked(sequence)
      this.#put(keyOf('q', sequence), { ...request, closed: true } satisfies RequestRecord)
      this.#put(keyOf('f', request.deadline, sequence), '')
      state = await this.#dropMessages(this.#tellMissed(state, request, missed))
    }
    await this.#commit(state)
    const awaited = this.#pending.get(sequence)
    this.#pending.delete(sequence)
    if (awaited) this.awaited.remove(awaited)
    return sequence
  }

  /** Writes down who of those that were asked has answered, and returns the others. */
  async #closeAsked(sequence: number): Promise<string[]> {
    const missed: string[] = []
    for await (const entries of this.#portions(allOf('k', sequence))) {
      const devices = entries.filter(([, value]) => JSON.parse(value) !== true).map(([key]) => secondOf(key))
      const receipts = await Promise.all(devices.map(device => this.#store.get(keyOf('r', sequence, device))))
      for (const [index, device] of devices.entries()) {
        if (receipts[index] === undefined) missed.push(device)
        else this.#put(keyOf('k', sequence, device), true satisfies AskedRecord)
      }
    }
    return missed
  }

  #tellMissed(state: BookState, request: RequestRecord, missed: readonly string[]): BookState {
    const { id, topic, deadline } = request
    for (let at = 0; at < missed.length; ) {
      const devices = upTo(missed.slice(at, at + devicesPerMessage), textPerMessage, device => device.length)
      state = this.#tell(state, topic, { type: 'missed', id, topic, devices, deadline: iso(deadline) }, id)
      at += devices.length
    }
    return state
  }

  /** Adds a message about an event on `topic`. About messages on receipts there are none, or there would be no end. */
  #tell(state: BookState, topic: string, what: object, group: string): BookState {
    if (topic.startsWith(topicPrefix)) return state
    const { levels, length } = this.#bounds.topic
    if (levelsOf(topic) >= levels || Buffer.byteLength(topic) + topicPrefix.length > length) return state
    const message: MessageRecord = { topic: topicPrefix + topic, payload: JSON.stringify(what), group }
    this.#put(keyOf('m', state.message), message)
    return { ...state, messages: state.messages + 1, message: state.message + 1 }
  }

  /** Lets go of the messages that have waited longest, where there are too many. */
  async #dropMessages(state: BookState): Promise<BookState> {
    const over = state.messages - this.#bounds.maxMessages
    if (over <= 0) return state
    const oldest = await this.#store.range(allOf('m'), over)
    for (const [key] of oldest) this.#delete(key)
    this.dropped += oldest.length
    return { ...state, messages: state.messages - oldest.length }
  }

  /** The messages that have waited longest. */
  async waitingMessages(limit: number): Promise<WaitingMessage[]> {
    const entries = await this.#store.range(allOf('m'), limit)
    return entries.map(([key, value]) => ({ key, ...(JSON.parse(value) as MessageRecord) }))
  }

  /** Forgets messages that are published. */
  async sent(keys: readonly string[]): Promise<void> {
    let { messages } = this.#state
    for (const key of keys) {
      if ((await this.#store.get(key)) === undefined) continue
      this.#delete(key)
      messages--
    }
    await this.#commit({ ...this.#state, messages })
  }

  /** What is known of an event. */
  async report(event: ReceiptEvent, options: ReportRange): Promise<ReceiptReport> {
    const { id, sequence, topic, time } = event
    const request = await this.requestOf(sequence)
    const asked = request ? await this.#page('k', sequence, options) : []
    const requested = request && {
      from: request.from,
      count: request.asked,
      devices: asked.map(([key]) => secondOf(key)),
      deadline: request.deadline,
      missed: request.closed
        ? asked.filter(([, value]) => JSON.parse(value) !== true).map(([key]) => secondOf(key))
        : undefined,
    }
    const receipts = await this.#page('r', sequence, options)
    return {
      event: { id, topic, time },
      requested,
      written: (await this.#page('w', sequence, options)).map(([key]) => secondOf(key)),
      receipts: receipts.map(([key, value]) => receiptOf(secondOf(key), JSON.parse(value))),
    }
  }

  /** Entries of a kind about an event, of the devices that a report lists. */
  async #page(
    kind: 'k' | 'w' | 'r',
    sequence: number,
    { limit, after, maxText = Number.POSITIVE_INFINITY }: ReportRange,
  ): Promise<Entry[]> {
    const all = allOf(kind, sequence)
    // The name with a character that no name has comes right after it.
    const range = after === undefined ? all : { ...all, gte: `${keyOf(kind, sequence, after)}\0` }
    const sizeOf = ([key, value]: Entry): number => secondOf(key).length + value.length
    const page: Entry[] = []
    let left = maxText
    for await (const entries of this.#portions(range)) {
      page.push(...entries)
      left -= entries.reduce((size, entry) => size + sizeOf(entry), 0)
      if (page.length >= limit || left < 0) break
    }
    return upTo(page.slice(0, limit), maxText, sizeOf)
  }

  /**
   * Forgets a portion of what is known of events before `first`, unless their deadline is to come.
   *
   * @param from the place that it begins at: what is before that has been forgotten
   * @returns the place to go on from; `undefined` where that was all
   */
  async trim(first: number, from: number): Promise<number | undefined> {
    const until = (kind: 'r' | 'q') => ({ gte: keyOf(kind, from), lt: keyOf(kind, first) })
    const receipts = await this.#store.range(until('r'), portion)
    const requests = await this.#store.range(until('q'), portion)
    let end = Math.min(this.#endOf(receipts, first), this.#endOf(requests, first))
    let state = this.#state
    for (const [key, value] of receipts) {
      if (this.#pending.has(firstOf(key))) continue
      this.#delete(key)
      this.#delete(keyOf('o', (JSON.parse(value) as ReceiptRecord).order))
      state = { ...state, receipts: state.receipts - 1 }
    }
    for (const [key, value] of requests) {
      const sequence = firstOf(key)
      if (this.#pending.has(sequence)) continue
      const { deadline } = JSON.parse(value) as RequestRecord
      state = await this.#dropRequest(state, keyOf('f', deadline, sequence))
      if (this.#changes.length < enoughChanges) continue
      end = Math.min(end, sequence + 1)
      break
    }
    if (this.#changes.length > 0) await this.#commit(state)
    return end < first ? end : undefined
  }

  /** Up to where all was looked at that a portion is of; more of its last event may be there. */
  #endOf(entries: readonly (readonly [string, string])[], first: number): number {
    const [key] = entries.at(-1) ?? []
    if (key === undefined || entries.length < portion) return first
    const sequence = firstOf(key)
    return this.#pending.has(sequence) ? sequence + 1 : sequence
  }

  /** The devices of the keys of a kind and an event. */
  async #devices(kind: 'k' | 'w', sequence: number): Promise<string[]> {
    const devices: string[] = []
    for await (const [key] of this.#all(allOf(kind, sequence))) devices.push(secondOf(key))
    return devices
  }

  /** All of a range, read in portions. */
  async *#all(range: KeyRange): AsyncGenerator<Entry> {
    for await (const entries of this.#portions(range)) yield* entries
  }

  async *#portions({ gte, lt }: KeyRange): AsyncGenerator<readonly Entry[]> {
    for (;;) {
      const entries = await this.#store.range({ gte, lt }, portion)
      yield entries
      if (entries.length < portion) return
      gte = `${entries.at(-1)?.[0]}\0`
    }
  }

  async #read<T>(key: string): Promise<T | undefined> {
    const text = await this.#store.get(key)
    return text === undefined ? undefined : JSON.parse(text)
  }

  #put(key: string, value: unknown): void {
    this.#changes.push({ type: 'put', key, value: JSON.stringify(value) })
  }

  #delete(key: string): void {
    this.#changes.push({ type: 'del', key })
  }

  async #commit(state: BookState): Promise<void> {
    const changes = this.#changes
    this.#changes = []
    this.#put(stateKey, state)
    await this.#store.batch([...changes, ...this.#changes.splice(0)])
    this.#state = state
  }
}

/** Which devices each list of a report has: at most `limit`, after one in the order of the store. */
export type ReportRange = ReportOptions & { readonly limit: number }

/** A request for receipts that is new. */
export interface NewRequest extends Pick<ReceiptRequest, 'from'> {
  /** On whose behalf. */
  readonly by: string
  /** Each once. */
  readonly devices: readonly string[]
  readonly deadline: number
}

type Entry = readonly [key: string, value: string]

/** The first of a list that are together no larger than `most`; one at least, where there is one. */
function upTo<T>(list: readonly T[], most: number, sizeOf: (item: T) => number): T[] {
  let size = 0
  const end = list.findIndex((item, index) => {
    size += sizeOf(item)
    return size > most && index > 0
  })
  return list.slice(0, end === -1 ? list.length : end)
}

function emptyState(epoch: string): BookState {
  return { epoch, form: currentForm, receipts: 0, order: 0, requests: 0, asked: 0, messages: 0, message: 0 }
}

function receiptOf(device: string, { status, time, detail, user }: ReceiptRecord): Receipt {
  return { device, status, time, ...(detail !== undefined && { detail }), ...(user !== undefined && { user }) }
}

function iso(time: number): string {
  return new Date(time).toISOString()
}
