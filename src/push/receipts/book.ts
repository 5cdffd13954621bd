import { Ending } from '../../endings.js'
import type { Receipt, ReceiptReport, ReceiptRequest, ReceiptStatus } from '../receipts.js'
import { levelsOf } from '../topics.js'
import {
  allOf,
  type BookState,
  before,
  eventKinds,
  firstOf,
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
/** Devices that one message names, so that it stays far below what brokers take: a name has up to 255 bytes. */
const devicesPerMessage = 500

const topicPrefix = 'receipts/'

/** How far a status is. */
const ranks: Readonly<Record<ReceiptStatus, number>> = { received: 0, processed: 1, failed: 1 }

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
  #state: BookState
  /** Events whose deadline is to come. */
  readonly #pending = new Set<number>()
  /** Changes of the batch that is being made. */
  #changes: StoreChange[] = []

  constructor(store: ReceiptStore, epoch: string, bounds: ReceiptBounds) {
    this.#store = store
    this.#epoch = epoch
    this.#bounds = bounds
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
   * Reads what is in the store. What is of another epoch is forgotten with its events; messages that wait are not.
   *
   * @returns how many events whose deadline was to come were forgotten
   */
  async load(): Promise<number> {
    this.#changes = []
    this.#pending.clear()
    const text = await this.#store.get(stateKey)
    const state: BookState = text === undefined ? emptyState(this.#epoch) : JSON.parse(text)
    this.#state = state
    for await (const [key] of this.#all(allOf('d'))) this.#pending.add(Number(secondOf(key)))
    if (state.epoch === this.#epoch) return 0
    for (const kind of eventKinds) await this.#store.clear(allOf(kind))
    const lost = this.#pending.size
    this.#pending.clear()
    const { messages, message } = state
    await this.#commit({ ...emptyState(this.#epoch), messages, message })
    return lost
  }

  /** The requests whose deadline is to come, each with the devices to which its event has not been written. */
  async *pending(): AsyncGenerator<{
    readonly request: RequestRecord
    readonly sequence: number
    unwritten: string[]
  }> {
    for (const sequence of this.#pending) {
      const request = await this.requestOf(sequence)
      if (!request) continue
      const written = new Set(await this.#devices('w', sequence))
      yield { request, sequence, unwritten: request.devices.filter(device => !written.has(device)) }
    }
  }

  async requestOf(sequence: number): Promise<RequestRecord | undefined> {
    return this.#read<RequestRecord>(keyOf('q', sequence))
  }

  /** Notes what a device says of an event, as `Receipts.record`. */
  async record(
    event: ReceiptEvent,
    { device, status, detail }: Omit<Receipt, 'time'>,
    time: number,
  ): Promise<{ readonly receipt: Receipt; readonly fresh: boolean }> {
    const key = keyOf('r', event.sequence, device)
    const known = await this.#read<ReceiptRecord>(key)
    if (known && ranks[status] <= ranks[known.status]) return { receipt: receiptOf(device, known), fresh: false }
    let state = this.#state
    const record: ReceiptRecord = { order: known?.order ?? state.order, status, time, detail }
    this.#put(key, record)
    if (!known) {
      this.#put(keyOf('o', record.order), [event.sequence, device] satisfies OrderRecord)
      state = { ...state, receipts: state.receipts + 1, order: state.order + 1 }
      state = await this.#dropOldest(state)
    }
    const { id, topic } = event
    const said = {
      type: 'receipt',
      id,
      topic,
      device,
      status,
      time: iso(time),
      ...(detail !== undefined && { detail }),
    }
    state = this.#tell(state, topic, said, `${id} ${device}`)
    await this.#commit(await this.#dropMessages(state))
    return { receipt: receiptOf(device, record), fresh: true }
  }

  /** Lets go of the oldest receipts, where there are too many. Who has answered before the deadline is remembered. */
  async #dropOldest(state: BookState): Promise<BookState> {
    const over = state.receipts - this.#bounds.maxReceipts
    if (over <= 0) return state
    for (const [key, value] of await this.#store.range(allOf('o'), Math.min(over, portion))) {
      const [sequence, device]: OrderRecord = JSON.parse(value)
      this.#delete(key)
      this.#delete(keyOf('r', sequence, device))
      if (this.#pending.has(sequence)) this.#put(keyOf('a', sequence, device), '')
      state = { ...state, receipts: state.receipts - 1 }
    }
    return state
  }

  /**
   * Wants receipts of an event from now on; nothing happens where that is so already.
   *
   * @returns whether it was new
   * @throws {Ending} rejects with `receipts-full`
   */
  async request(
    event: ReceiptEvent,
    { from }: Pick<ReceiptRequest, 'from'>,
    devices: readonly string[],
    deadline: number,
  ): Promise<boolean> {
    const { id, sequence, topic, time } = event
    if (await this.requestOf(sequence)) return false
    const state = await this.#makeRoom(devices.length)
    this.#put(keyOf('q', sequence), { id, topic, time, from, devices, deadline } satisfies RequestRecord)
    this.#put(keyOf('d', deadline, sequence), '')
    await this.#commit({ ...state, requests: state.requests + 1, asked: state.asked + devices.length })
    this.#pending.add(sequence)
    return true
  }

  /** Forgets the oldest requests of which all is known, where there are too many. */
  async #makeRoom(devices: number): Promise<BookState> {
    const { maxRequests, maxReceipts } = this.#bounds
    let state = this.#state
    const isFull = (): boolean => state.requests >= maxRequests || state.asked + devices > maxReceipts
    if (isFull()) {
      for await (const [key] of this.#all(allOf('f'))) {
        state = await this.#dropRequest(state, key)
        if (!isFull()) break
      }
    }
    if (!isFull()) return state
    this.#changes = []
    throw new Ending('receipts-full')
  }

  /** @param key of the kind `f` */
  async #dropRequest(state: BookState, key: string): Promise<BookState> {
    const sequence = Number(secondOf(key))
    const request = await this.requestOf(sequence)
    this.#delete(key)
    this.#delete(keyOf('q', sequence))
    for (const device of await this.#devices('w', sequence)) this.#delete(keyOf('w', sequence, device))
    return { ...state, requests: state.requests - 1, asked: state.asked - (request?.devices.length ?? 0) }
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
      const answered = await this.#devices('a', sequence)
      const missing = new Set(request.devices)
      for (const device of answered) this.#delete(keyOf('a', sequence, device))
      for (const device of answered) missing.delete(device)
      for (const device of await this.#devices('r', sequence)) missing.delete(device)
      const missed = [...missing]
      this.#put(keyOf('q', sequence), { ...request, missed } satisfies RequestRecord)
      this.#put(keyOf('f', request.deadline, sequence), '')
      state = await this.#dropMessages(this.#tellMissed(state, request, missed))
    }
    await this.#commit(state)
    this.#pending.delete(sequence)
    return sequence
  }

  #tellMissed(state: BookState, request: RequestRecord, missed: readonly string[]): BookState {
    const { id, topic, deadline } = request
    for (let at = 0; at < missed.length; at += devicesPerMessage) {
      const devices = missed.slice(at, at + devicesPerMessage)
      state = this.#tell(state, topic, { type: 'missed', id, topic, devices, deadline: iso(deadline) }, id)
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
  async report(event: ReceiptEvent, { limit, after }: ReportRange): Promise<ReceiptReport> {
    const { id, sequence, topic, time } = event
    const request = await this.requestOf(sequence)
    const all = allOf('r', sequence)
    // The name with a character that no name has comes right after it.
    const range = after === undefined ? all : { ...all, gte: `${keyOf('r', sequence, after)}\0` }
    const receipts = await this.#store.range(range, limit)
    const requested = request && {
      from: request.from,
      devices: request.devices,
      deadline: request.deadline,
      missed: request.missed,
    }
    return {
      event: { id, topic, time },
      requested,
      written: await this.#devices('w', sequence),
      receipts: receipts.map(([key, value]) => receiptOf(secondOf(key), JSON.parse(value))),
    }
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
    const end = Math.min(this.#endOf(receipts, first), this.#endOf(requests, first))
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
  async #devices(kind: 'r' | 'w' | 'a', sequence: number): Promise<string[]> {
    const devices: string[] = []
    for await (const [key] of this.#all(allOf(kind, sequence))) devices.push(secondOf(key))
    return devices
  }

  /** All of a range, read in portions. */
  async *#all({ gte, lt }: KeyRange): AsyncGenerator<readonly [string, string]> {
    for (;;) {
      const entries = await this.#store.range({ gte, lt }, portion)
      yield* entries
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

/** Which receipts a report has: at most `limit`, of the devices after one in the order of the store. */
export interface ReportRange {
  readonly limit: number
  readonly after?: string | undefined
}

function emptyState(epoch: string): BookState {
  return { epoch, receipts: 0, order: 0, requests: 0, asked: 0, messages: 0, message: 0 }
}

function receiptOf(device: string, { status, time, detail }: ReceiptRecord): Receipt {
  return { device, status, time, ...(detail !== undefined && { detail }) }
}

function iso(time: number): string {
  return new Date(time).toISOString()
}
