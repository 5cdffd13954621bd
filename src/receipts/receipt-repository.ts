import type { Store } from '../storage/store.js'
import { BatchedStore, batchSize } from './batched-store.js'
import { type MessageBounds, ReceiptMessages, type WaitingMessage } from './messages.js'
import { type PendingReceipts, ReceiptQuota } from './receipt-quota.js'
import type { Receipt, ReceiptReport, ReceiptRequest, ReceiptStatus } from './receipts.js'
import {
  type AskedRecord,
  allOf,
  before,
  eventKinds,
  firstOf,
  iso,
  keyOf,
  type OrderRecord,
  type ReceiptEvent,
  type ReceiptRecord,
  type RepositoryState,
  type RequestRecord,
  secondOf,
  stateKey,
} from './records.js'
import { type ReportRange, readReport, receiptOf } from './report.js'

/** Bounds of what is stored. */
export interface ReceiptBounds extends MessageBounds {
  /** Receipts, and requested receipts; beyond, the oldest receipts are dropped. */
  readonly maxReceipts: number
  /** Requests. */
  readonly maxRequests: number
}

/** Changes of one batch when old records are deleted. */
const enoughChanges = 5000

/** The order of statuses. */
const ranks: Readonly<Record<ReceiptStatus, number>> = { received: 0, processed: 1, failed: 1 }

/** Whether a receipt replaces the stored one: a later status, or an authenticated user where there was none. */
function isFurther({ status, user }: Omit<Receipt, 'time' | 'device'>, known: ReceiptRecord): boolean {
  const isProven = user !== undefined
  if (isProven !== (known.user !== undefined)) return isProven
  return ranks[status] > ranks[known.status]
}

/**
 * The stored receipts. Calls must be made one after the other. After a call that rejects, the state is unknown until `load` is called.
 */
export class ReceiptRepository {
  readonly #store: BatchedStore
  readonly #messages: ReceiptMessages
  readonly #epoch: string
  readonly #bounds: ReceiptBounds
  /** Receipts that were not requested and not published, because there were too many. */
  unpublished = 0
  /** Quota of requested receipts; a reservation counts until its request is stored. */
  readonly quota: ReceiptQuota
  #state: RepositoryState
  /** Requests whose deadline has not passed. */
  readonly #pending = new Map<number, PendingReceipts>()

  constructor(store: Store, epoch: string, bounds: ReceiptBounds) {
    this.#store = new BatchedStore(store)
    this.#messages = new ReceiptMessages(this.#store, bounds)
    this.#epoch = epoch
    this.#bounds = bounds
    this.quota = new ReceiptQuota(bounds)
    this.#state = emptyState(epoch)
  }

  /** Queued messages. */
  get messages(): number {
    return this.#state.messages
  }

  /** Messages that were dropped because the queue was full. */
  get dropped(): number {
    return this.#messages.dropped
  }

  /** Whether an event has a deadline that has not passed. */
  isPending(sequence: number): boolean {
    return this.#pending.has(sequence)
  }

  /**
   * Reads the store. Records of another epoch are deleted, except queued messages.
   *
   * @param epochs earlier ones whose events have the same sequences now
   * @returns the number of deleted requests whose deadline had not passed
   */
  async load(epochs?: ReadonlySet<string>): Promise<number> {
    this.#store.discard()
    this.#forgetPending()
    const state = (await this.#store.read<RepositoryState>(stateKey)) ?? emptyState(this.#epoch)
    this.#state = state
    const isKnown = state.epoch === this.#epoch || epochs?.has(state.epoch) === true
    let lost = 0
    for await (const [key, value] of this.#store.all(allOf('d'))) {
      if (isKnown) this.#addPending(Number(secondOf(key)), JSON.parse(value))
      else lost++
    }
    if (isKnown) {
      if (state.epoch !== this.#epoch) await this.#commit({ ...state, epoch: this.#epoch })
      return 0
    }
    for (const kind of eventKinds) await this.#store.clear(allOf(kind))
    const { messages, message } = state
    await this.#commit({ ...emptyState(this.#epoch), messages, message })
    return lost
  }

  #addPending(sequence: number, event: PendingReceipts): void {
    this.#pending.set(sequence, event)
    this.quota.add(event)
  }

  #forgetPending(): void {
    for (const event of this.#pending.values()) this.quota.remove(event)
    this.#pending.clear()
  }

  /** The requests whose deadline has not passed, of events after a sequence, ascending. */
  async *pending(after = 0): AsyncGenerator<PendingRequest> {
    const sequences = Float64Array.from([...this.#pending.keys()].filter(sequence => sequence > after))
    for (const sequence of sequences.sort()) {
      const awaited = this.#pending.get(sequence)
      const request = await this.requestOf(sequence)
      if (!request || !awaited) continue
      const written = new Set(await this.#devices('w', sequence))
      const asked = await this.#devices('k', sequence)
      const unwritten = asked.filter(device => !written.has(device))
      yield { sequence, topic: request.topic, unwritten, awaited }
    }
  }

  async requestOf(sequence: number): Promise<RequestRecord | undefined> {
    return this.#store.read<RequestRecord>(keyOf('q', sequence))
  }

  /** Stores a receipt, as `Receipts.record`. */
  async record(
    event: ReceiptEvent,
    said: Omit<Receipt, 'time'>,
    time: number,
  ): Promise<{ readonly receipt: Receipt; readonly fresh: boolean }> {
    const { device, status, detail, user } = said
    const key = keyOf('r', event.sequence, device)
    const known = await this.#store.read<ReceiptRecord>(key)
    if (known && !isFurther(said, known)) return { receipt: receiptOf(device, known), fresh: false }
    let state = this.#state
    const record: ReceiptRecord = { order: known?.order ?? state.order, status, time, detail, user }
    this.#store.put(key, record)
    if (!known) {
      this.#store.put(keyOf('o', record.order), [event.sequence, device] satisfies OrderRecord)
      state = { ...state, receipts: state.receipts + 1, order: state.order + 1 }
      state = await this.#dropOldest(state)
    }
    const { id, topic } = event
    const told = { type: 'receipt', id, topic, device, user, status, time: iso(time), detail }
    const isAwaited = await this.isAwaited(event.sequence, device)
    if (isAwaited || this.#messages.mayPublish(state)) state = this.#messages.add(state, topic, told, `${id} ${device}`)
    else this.unpublished++
    await this.#commit(await this.#messages.dropOldest(state))
    return { receipt: receiptOf(device, record), fresh: true }
  }

  /** Whether a receipt is requested and its deadline has not passed. */
  async isAwaited(sequence: number, device: string): Promise<boolean> {
    return this.#pending.has(sequence) && (await this.#store.has(keyOf('k', sequence, device)))
  }

  /** Drops the oldest receipts beyond the bound; before the deadline, a requested device stays marked as having one. */
  async #dropOldest(state: RepositoryState): Promise<RepositoryState> {
    const over = state.receipts - this.#bounds.maxReceipts
    if (over <= 0) return state
    for (const [key, value] of await this.#store.range(allOf('o'), Math.min(over, batchSize))) {
      const [sequence, device]: OrderRecord = JSON.parse(value)
      this.#store.delete(key)
      this.#store.delete(keyOf('r', sequence, device))
      if (await this.isAwaited(sequence, device)) {
        this.#store.put(keyOf('k', sequence, device), true satisfies AskedRecord)
      }
      state = { ...state, receipts: state.receipts - 1 }
    }
    return state
  }

  /**
   * Stores a request for receipts of an event. Idempotent.
   *
   * @returns whether it was new
   */
  async request(event: ReceiptEvent, { from, by, devices, deadline }: NewRequest): Promise<boolean> {
    const { id, sequence, topic, time } = event
    if (await this.requestOf(sequence)) return false
    const asked = devices.length
    const state = await this.#makeRoom(asked)
    const awaited: PendingReceipts = { by, devices: asked }
    this.#store.put(keyOf('q', sequence), {
      id,
      topic,
      time,
      from,
      asked,
      deadline,
      closed: false,
    } satisfies RequestRecord)
    this.#store.put(keyOf('d', deadline, sequence), awaited)
    for (const device of devices) this.#store.put(keyOf('k', sequence, device), false satisfies AskedRecord)
    await this.#commit({ ...state, requests: state.requests + 1, asked: state.asked + asked })
    this.#addPending(sequence, awaited)
    return true
  }

  /** Deletes the oldest requests whose deadline has passed, where there are too many. */
  async #makeRoom(devices: number): Promise<RepositoryState> {
    const { maxRequests, maxReceipts } = this.#bounds
    let state = this.#state
    const isFull = (): boolean => state.requests >= maxRequests || state.asked + devices > maxReceipts
    if (!isFull()) return state
    for await (const [key] of this.#store.all(allOf('f'))) {
      state = await this.#dropRequest(state, key)
      if (!isFull()) break
    }
    return state
  }

  /** @param key of the kind `f` */
  async #dropRequest(state: RepositoryState, key: string): Promise<RepositoryState> {
    const sequence = Number(secondOf(key))
    const request = await this.requestOf(sequence)
    this.#store.delete(key)
    this.#store.delete(keyOf('q', sequence))
    for (const kind of ['k', 'w'] as const) {
      for await (const [device] of this.#store.all(allOf(kind, sequence))) this.#store.delete(device)
    }
    return { ...state, requests: state.requests - 1, asked: state.asked - (request?.asked ?? 0) }
  }

  /** Stores deliveries to requested devices. */
  async wrote(written: ReadonlyMap<number, Iterable<string>>): Promise<void> {
    for (const [sequence, devices] of written) {
      if (!this.#pending.has(sequence)) continue
      for (const device of devices) this.#store.put(keyOf('w', sequence, device), '')
    }
    if (this.#store.collected > 0) await this.#commit(this.#state)
  }

  /** The nearest deadline. */
  async nextDeadline(): Promise<number | undefined> {
    const [first] = await this.#store.range(allOf('d'), 1)
    return first && firstOf(first[0])
  }

  /**
   * Closes the first request whose deadline is not after `now`.
   *
   * @returns the sequence of its event, and the number of devices without a receipt; `undefined` if there is none
   */
  async expireNext(now: number): Promise<{ readonly sequence: number; readonly missed: number } | undefined> {
    const [first] = await this.#store.range(before('d', now + 1), 1)
    if (!first) return undefined
    const [key] = first
    const sequence = Number(secondOf(key))
    const request = await this.requestOf(sequence)
    this.#store.delete(key)
    let state = this.#state
    let missed: readonly string[] = []
    if (request) {
      missed = await this.#closeAsked(sequence)
      this.#store.put(keyOf('q', sequence), { ...request, closed: true } satisfies RequestRecord)
      this.#store.put(keyOf('f', request.deadline, sequence), '')
      state = await this.#messages.dropOldest(this.#messages.addMissed(state, request, missed))
    }
    await this.#commit(state)
    const awaited = this.#pending.get(sequence)
    this.#pending.delete(sequence)
    if (awaited) this.quota.remove(awaited)
    return { sequence, missed: missed.length }
  }

  /** Marks the requested devices that have a receipt. @returns the others */
  async #closeAsked(sequence: number): Promise<string[]> {
    const missed: string[] = []
    for await (const entries of this.#store.batches(allOf('k', sequence))) {
      const devices = entries.filter(([, value]) => JSON.parse(value) !== true).map(([key]) => secondOf(key))
      const answered = await Promise.all(devices.map(device => this.#store.has(keyOf('r', sequence, device))))
      for (const [index, device] of devices.entries()) {
        if (!answered[index]) missed.push(device)
        else this.#store.put(keyOf('k', sequence, device), true satisfies AskedRecord)
      }
    }
    return missed
  }

  /** The oldest queued messages. */
  waitingMessages(limit: number): Promise<WaitingMessage[]> {
    return this.#messages.waiting(limit)
  }

  /** Deletes published messages. */
  async sent(keys: readonly string[]): Promise<void> {
    await this.#commit(await this.#messages.sent(this.#state, keys))
  }

  /** The report on an event. */
  async report(event: ReceiptEvent, range: ReportRange): Promise<ReceiptReport> {
    return readReport(this.#store, event, await this.requestOf(event.sequence), range)
  }

  /**
   * Deletes a batch of the records of events before `first`, except requests whose deadline has not passed.
   *
   * @param from the position to begin at
   * @returns the position to continue from; `undefined` when all are deleted
   */
  async trim(first: number, from: number): Promise<number | undefined> {
    const until = (kind: 'r' | 'q') => ({ gte: keyOf(kind, from), lt: keyOf(kind, first) })
    const receipts = await this.#store.range(until('r'), batchSize)
    const requests = await this.#store.range(until('q'), batchSize)
    let end = Math.min(this.#endOf(receipts, first), this.#endOf(requests, first))
    let state = this.#state
    for (const [key, value] of receipts) {
      if (this.#pending.has(firstOf(key))) continue
      this.#store.delete(key)
      this.#store.delete(keyOf('o', (JSON.parse(value) as ReceiptRecord).order))
      state = { ...state, receipts: state.receipts - 1 }
    }
    for (const [key, value] of requests) {
      const sequence = firstOf(key)
      if (this.#pending.has(sequence)) continue
      const { deadline } = JSON.parse(value) as RequestRecord
      state = await this.#dropRequest(state, keyOf('f', deadline, sequence))
      if (this.#store.collected < enoughChanges) continue
      end = Math.min(end, sequence + 1)
      break
    }
    if (this.#store.collected > 0) await this.#commit(state)
    return end < first ? end : undefined
  }

  /** The position up to which a batch is complete: it may end within the records of one event. */
  #endOf(entries: readonly (readonly [string, string])[], first: number): number {
    const [key] = entries.at(-1) ?? []
    if (key === undefined || entries.length < batchSize) return first
    const sequence = firstOf(key)
    return this.#pending.has(sequence) ? sequence + 1 : sequence
  }

  /** The devices of the keys of a kind and an event. */
  async #devices(kind: 'k' | 'w', sequence: number): Promise<string[]> {
    const devices: string[] = []
    for await (const [key] of this.#store.all(allOf(kind, sequence))) devices.push(secondOf(key))
    return devices
  }

  async #commit(state: RepositoryState): Promise<void> {
    await this.#store.commit(state)
    this.#state = state
  }
}

/** A request whose deadline has not passed. */
export interface PendingRequest {
  readonly sequence: number
  readonly topic: string
  /** Devices to which the event has not been written. */
  readonly unwritten: readonly string[]
  readonly awaited: PendingReceipts
}

/** A new request for receipts. */
export interface NewRequest extends Pick<ReceiptRequest, 'from'> {
  /** The account of the requester. */
  readonly by: string
  /** Without duplicates. */
  readonly devices: readonly string[]
  readonly deadline: number
}

function emptyState(epoch: string): RepositoryState {
  return { epoch, receipts: 0, order: 0, requests: 0, asked: 0, messages: 0, message: 0 }
}
