import { type Clock, systemClock } from '../base/clock.js'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import { LogRate } from '../base/log-rate.js'
import type { DeliveryTracker } from '../hub/delivery-tracker.js'
import { type Event, isGapMarker, parseId } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'
import type { Presence } from '../presence/presence.js'
import type { Publisher } from '../sources/publisher.js'
import type { Store } from '../storage/store.js'
import { Outbox } from './outbox.js'
import { type NewRequest, type ReceiptBounds, ReceiptRepository } from './receipt-repository.js'
import type { Receipt, ReceiptReport, ReceiptRequest, ReceiptReservation, Receipts, ReportOptions } from './receipts.js'
import type { ReceiptEvent } from './records.js'

/** Bounds without an option. */
const defaultBounds = { maxRequests: 100_000, maxMessages: 10_000, topic: { topicLevels: 100, topicLength: 65_535 } }
/** Events whose topic and time are cached, so that a thousand receipts of one event read it once. */
const maxCached = 1024
/** Default size of each list of a report. */
const reportLimit = 1000
/** Milliseconds after which a deadline is checked again: the system clock may be set meanwhile. */
const maxTimer = 60_000
/** The detail of a receipt that is an MQTT client's acknowledgement: its software has the message, not necessarily its application. */
const acknowledgedDetail = 'acknowledged over MQTT'
/** Milliseconds until a retry after a failure of the store. */
const retryDelay = 1000

export interface ReceiptsOptions {
  /** Closed with the receipts. */
  readonly store: Store
  /** The journal of the events. */
  readonly journal: Journal
  readonly publisher: Publisher
  readonly presence: Presence
  /** Deliveries: the hub's. */
  readonly tracking: DeliveryTracker
  readonly clock?: Clock
  readonly log: Logger
  readonly bounds: Pick<ReceiptBounds, 'maxReceipts'> & Partial<ReceiptBounds>
}

/**
 * Opens the receipts. Deadlines that have passed since they were closed are handled at once.
 *
 * @throws rejects if the store cannot be read
 */
export async function openReceipts(options: ReceiptsOptions): Promise<Receipts> {
  const { store, journal, log } = options
  const repository = new ReceiptRepository(store, journal.epoch, { ...defaultBounds, ...options.bounds })
  const lost = await repository.load()
  if (lost > 0) {
    log.warn(`${lost} events with requested receipts are lost with the journal`)
  }
  const receipts = new StoredReceipts(repository, options)
  await receipts.start()
  return receipts
}

class StoredReceipts implements Receipts {
  readonly #repository: ReceiptRepository
  readonly #options: ReceiptsOptions
  readonly #clock: Clock
  readonly #outbox: Outbox
  readonly #cache = new Map<number, ReceiptEvent>()
  /** The last call of the repository: calls are made one after the other. */
  #queue: Promise<unknown> = Promise.resolve()
  /** Whether the repository has to be loaded again, because a call has failed. */
  #stale = false
  /** The nearest deadline, and the function that stops its timer. */
  #deadline = Number.POSITIVE_INFINITY
  #stopTimer: (() => void) | undefined
  /** Deliveries that are not stored yet: devices by sequence. */
  #written = new Map<number, Set<string>>()
  /** The sequence before which everything has been trimmed. */
  #trimmed = 0
  #trimming = false
  readonly #warnings = new LogRate()
  /** The counters at the last warning. */
  #warned = { dropped: 0, unpublished: 0 }
  #closing: Promise<void> | undefined

  constructor(repository: ReceiptRepository, options: ReceiptsOptions) {
    this.#repository = repository
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#outbox = new Outbox({
      waiting: limit => this.#enqueue(() => repository.waitingMessages(limit)),
      sent: keys => this.#enqueue(() => repository.sent(keys)),
      publisher: options.publisher,
      clock: this.#clock,
      log: options.log,
    })
    options.tracking.onWritten = (sequence, device) => this.#trackWritten(sequence, device)
  }

  async start(): Promise<void> {
    for await (const { sequence, request, unwritten } of this.#repository.pending()) {
      this.#options.tracking.track(sequence, request.topic, unwritten)
    }
    this.#arm(await this.#repository.nextDeadline())
    this.#outbox.wake()
    this.#trimSoon()
  }

  async record(
    id: string,
    receipt: Omit<Receipt, 'time'>,
  ): Promise<{ readonly receipt: Receipt; readonly fresh: boolean } | undefined> {
    const event = await this.#find(id)
    if (!event) return undefined
    const recorded = await this.#enqueue(async () => {
      // It may have been trimmed meanwhile.
      if (this.#isGone(event.sequence)) return undefined
      await this.#trimStep()
      return this.#repository.record(event, receipt, this.#clock.now())
    })
    if (recorded?.fresh) this.#changed()
    return recorded
  }

  async acknowledged(id: string, { device, user }: Pick<Receipt, 'device' | 'user'>): Promise<boolean> {
    const { epoch, sequence = 0 } = parseId(id) ?? {}
    // Most events ask for no receipts.
    if (epoch !== this.#options.journal.epoch || !this.#repository.isPending(sequence)) return false
    const recorded = await this.#enqueue(() => this.#recordAcknowledged(sequence, device, user))
    if (recorded) this.#changed()
    return recorded
  }

  #noteAcknowledged(id: string, client: Pick<Receipt, 'device' | 'user'>): void {
    this.acknowledged(id, client).catch(error => {
      if (!this.#closing) this.#options.log.warn({ err: error }, 'failed to store an acknowledgement')
    })
  }

  async #recordAcknowledged(sequence: number, device: string, user: string | undefined): Promise<boolean> {
    const request = await this.#repository.requestOf(sequence)
    if (!request || !(await this.#repository.isAwaited(sequence, device))) return false
    const receipt = { device, user, status: 'received', detail: acknowledgedDetail } as const
    return (await this.#repository.record({ ...request, sequence }, receipt, this.#clock.now())).fresh
  }

  reserve(topic: string, { from, within }: ReceiptRequest, by: string): ReceiptReservation {
    const { presence, bounds } = this.#options
    const { quota } = this.#repository
    const devices = new Set(from === 'present' ? [] : from)
    if (from === 'present' || devices.delete('present')) {
      // One more than the bound, so that too many are refused.
      for (const device of presence.devicesAt(topic, bounds.maxReceipts + 1)) devices.add(device)
    }
    const wanted = { by, devices: devices.size }
    quota.require(wanted)
    quota.add(wanted)
    let isTaken = true
    const cancel = (): void => {
      if (isTaken) quota.remove(wanted)
      isTaken = false
    }
    const early: Pick<Receipt, 'device' | 'user'>[] = []
    let id: string | undefined
    const confirm = async (event: Event): Promise<void> => {
      const request = { from, by, devices: [...devices], deadline: this.#clock.now() + within }
      await this.#request(event, request).finally(cancel)
      id = event.id
      for (const client of early) this.#noteAcknowledged(id, client)
    }
    const acknowledged = (client: Pick<Receipt, 'device' | 'user'>): void => {
      if (!devices.has(client.device)) return
      // A message leaves for its subscribers before it is an event.
      if (id === undefined) early.push(client)
      else this.#noteAcknowledged(id, client)
    }
    return { confirm, cancel, acknowledged }
  }

  async #request({ id, sequence, topic, time }: Event, request: NewRequest): Promise<void> {
    const { tracking } = this.#options
    const { devices, deadline } = request
    // Before the first await: the event is written at the end of this tick.
    const isTracked = tracking.track(sequence, topic, devices)
    let isNew = false
    try {
      isNew = await this.#enqueue(async () => {
        await this.#trimStep()
        return this.#repository.request({ id, sequence, topic, time }, request)
      })
    } finally {
      if (isTracked && !isNew) tracking.untrack(sequence)
    }
    if (isNew && deadline < this.#deadline) this.#arm(deadline)
  }

  async report(id: string, options: ReportOptions = {}): Promise<ReceiptReport | undefined> {
    const event = await this.#find(id)
    return (
      event && this.#enqueue(() => this.#repository.report(event, { ...options, limit: options.limit ?? reportLimit }))
    )
  }

  async topicOf(id: string): Promise<string | undefined> {
    return (await this.#find(id))?.topic
  }

  /** Finds an event in the journal, or, if its deadline has not passed, in the repository. */
  async #find(id: string): Promise<ReceiptEvent | undefined> {
    const { journal } = this.#options
    const { epoch, sequence = 0 } = parseId(id) ?? {}
    if (epoch !== journal.epoch || sequence < 1 || sequence > journal.head || this.#isGone(sequence)) return undefined
    const known = this.#cache.get(sequence)
    if (known) return known
    const journaled = sequence < journal.first ? undefined : await this.#findJournaled(sequence)
    const found = journaled ?? (await this.#findAsked(sequence))
    if (!found) return undefined
    if (this.#cache.size >= maxCached) {
      const [oldest] = this.#cache.keys()
      if (oldest !== undefined) this.#cache.delete(oldest)
    }
    this.#cache.set(sequence, found)
    return found
  }

  #isGone(sequence: number): boolean {
    return sequence < this.#options.journal.first && !this.#repository.isPending(sequence)
  }

  async #findAsked(sequence: number): Promise<ReceiptEvent | undefined> {
    const request = await this.#enqueue(() => this.#repository.requestOf(sequence))
    return request && { id: request.id, sequence, topic: request.topic, time: request.time }
  }

  async #findJournaled(sequence: number): Promise<ReceiptEvent | undefined> {
    const query = { after: sequence - 1, through: sequence, limit: 1, maxBytes: 1, includesExpired: true }
    try {
      const [event] = (await this.#options.journal.read(query)).events
      if (!event || isGapMarker(event)) return undefined
      return { id: event.id, sequence, topic: event.topic, time: event.time }
    } catch (error) {
      throw new GatewayError('journal-unavailable', { cause: error })
    }
  }

  /** After each change: publishes, trims, and logs what was dropped. */
  #changed(): void {
    this.#outbox.wake()
    this.#trimSoon()
    const { dropped, unpublished } = this.#repository
    const news = { dropped: dropped - this.#warned.dropped, unpublished: unpublished - this.#warned.unpublished }
    if (news.dropped + news.unpublished === 0 || !this.#warnings.allows('', this.#clock.now())) return
    this.#warned = { dropped, unpublished }
    const { log } = this.#options
    if (news.dropped > 0) log.warn(`${news.dropped} messages on receipts/# were dropped: the queue is full`)
    if (news.unpublished > 0)
      log.warn(
        `${news.unpublished} receipts that were not requested are stored and not published: the rate is exceeded`,
      )
  }

  /** Collects the deliveries of one tick of the event loop. */
  #trackWritten(sequence: number, device: string): void {
    if (this.#written.size === 0) setImmediate(() => this.#storeWritten())
    const devices = this.#written.get(sequence) ?? new Set()
    this.#written.set(sequence, devices.add(device))
  }

  #storeWritten(): void {
    const written = this.#written
    this.#written = new Map()
    this.#enqueue(() => this.#repository.wrote(written)).catch(error => {
      if (!this.#closing) this.#options.log.warn({ err: error }, 'failed to store deliveries')
    })
  }

  /** Sets the timer for the nearest deadline. */
  #arm(deadline = Number.POSITIVE_INFINITY): void {
    this.#stopTimer?.()
    this.#stopTimer = undefined
    this.#deadline = deadline
    if (this.#closing || deadline === Number.POSITIVE_INFINITY) return
    const delay = Math.min(Math.max(0, deadline - this.#clock.now()), maxTimer)
    this.#stopTimer = this.#clock.after(delay, () => {
      void this.#expire()
    })
  }

  /** Handles the deadlines that have passed. */
  async #expire(): Promise<void> {
    // Deadlines that are added meanwhile set their own timer, or are found below.
    this.#deadline = Number.POSITIVE_INFINITY
    try {
      for (;;) {
        const sequence = await this.#enqueue(() => this.#repository.expireNext(this.#clock.now()))
        if (sequence === undefined) break
        this.#options.tracking.untrack(sequence)
        if (this.#isGone(sequence)) {
          this.#cache.delete(sequence)
          this.#trimmed = Math.min(this.#trimmed, sequence)
        }
        this.#changed()
      }
      const next = await this.#enqueue(() => this.#repository.nextDeadline())
      if (next !== undefined && next < this.#deadline) this.#arm(next)
    } catch (error) {
      if (this.#closing) return
      this.#options.log.warn({ err: error }, 'failed to store missed deadlines and will retry')
      this.#arm(this.#clock.now() + retryDelay)
    }
  }

  /** Trims the stored data of evicted events in the background. */
  #trimSoon(): void {
    if (this.#trimming || this.#trimmed >= this.#options.journal.first) return
    this.#trimming = true
    this.#trim()
      .catch(error => {
        if (!this.#closing) this.#options.log.warn({ err: error }, 'failed to trim receipts of evicted events')
      })
      .finally(() => {
        this.#trimming = false
      })
  }

  async #trim(): Promise<void> {
    while (!this.#closing && this.#trimmed < this.#options.journal.first) await this.#enqueue(() => this.#trimStep())
  }

  /** Trims one batch, before a full store would drop receipts of existing events. */
  async #trimStep(): Promise<void> {
    const { first } = this.#options.journal
    const from = this.#trimmed
    if (from >= first) return
    // A deadline that passes meanwhile may set it back.
    this.#trimmed = first
    try {
      this.#trimmed = Math.min(this.#trimmed, (await this.#repository.trim(first, from)) ?? first)
    } catch (error) {
      this.#trimmed = from
      throw error
    }
  }

  /** Runs a task when all tasks before it have ended. */
  #enqueue<T>(task: () => Promise<T>): Promise<T> {
    const current = this.#queue.then(async () => {
      try {
        if (this.#stale) await this.#repository.load()
        this.#stale = false
        return await task()
      } catch (error) {
        if (error instanceof GatewayError) throw error
        this.#stale = true
        throw new GatewayError('journal-unavailable', { cause: error })
      }
    })
    this.#queue = current.catch(() => {})
    return current
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stopTimer?.()
    await this.#outbox.close()
    if (this.#written.size > 0) this.#storeWritten()
    await this.#queue
    await this.#options.store.close()
  }
}
