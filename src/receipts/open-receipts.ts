import { type Clock, systemClock } from '../base/clock.js'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import { LogRate } from '../base/log-rate.js'
import type { ReceiptOutcome } from '../base/metrics.js'
import { isGapMarker, parseId } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'
import type { Presence } from '../presence/presence.js'
import type { Publisher } from '../sources/publisher.js'
import type { Store } from '../storage/store.js'
import { batchSize } from './batched-store.js'
import type { WaitingMessage } from './messages.js'
import { atOnce, Outbox } from './outbox.js'
import type { PendingReceipts } from './receipt-quota.js'
import { type PendingRequest, type ReceiptBounds, ReceiptRepository } from './receipt-repository.js'
import type { Receipt, ReceiptReport, ReceiptRequest, ReceiptReservation, Receipts, ReportOptions } from './receipts.js'
import type { ReceiptEvent } from './records.js'
import { type ReservationOptions, type ReservedRequest, reserveReceipts } from './reservation.js'

/** Bounds without an option. */
export const defaultBounds = {
  maxRequests: 100_000,
  maxMessages: 10_000,
  topic: { topicLevels: 100, topicLength: 65_535 },
}
/** Events whose topic and time are cached, so that a thousand receipts of one event read it once. */
const maxCached = 1024
/** Default size of each list of a report. */
const reportLimit = 1000
/** Milliseconds after which a deadline is checked again: the system clock may be set meanwhile. */
const maxTimer = 60_000
/** Requests of one part of the pending ones, or devices, about. */
const pageSize = 1000
/** The detail of a receipt that is an MQTT client's acknowledgement: its software has the message, not necessarily its application. */
const acknowledgedDetail = 'acknowledged over MQTT'
/** Milliseconds until a retry after a failure of the store. */
const retryDelay = 1000

/** Tracks deliveries of events with requested receipts. */
export interface RequestTracking {
  /** Called once for each device and event. It must not throw. */
  onWritten: (sequence: number, device: string) => void
  /** Tracks an event until it has been written to all of these devices. @returns whether it was not tracked before */
  track(sequence: number, topic: string, devices: readonly string[], awaited: PendingReceipts): boolean
  untrack(sequence: number): void
}

/** Receipts with the operations that other gateways call. */
export interface OwnReceipts extends Receipts {
  /** Requests receipts of an event. Idempotent. */
  request(event: ReceiptEvent, request: ReservedRequest): Promise<void>
  /** Stores deliveries to requested devices, by sequence. */
  wrote(written: ReadonlyMap<number, Iterable<string>>): Promise<void>
  /** The requests after a sequence whose deadline has not passed: a part of them, ascending; none if there are no more. */
  pending(after: number): Promise<readonly PendingRequest[]>
}

export interface ReceiptsOptions {
  /** Closed with the receipts. */
  readonly store: Store
  /** The journal of the events. */
  readonly journal: Journal
  readonly publisher: Publisher
  readonly presence: Presence
  /** The hub's, or those of several gateways. */
  readonly tracking: RequestTracking
  /** Has the journal read what other gateways have appended; left out for a journal of this gateway alone. */
  readonly catchUp?: (() => Promise<void>) | undefined
  /** Whether what was published a while ago is in the journal; left out for always. */
  readonly isSettled?: (() => boolean) | undefined
  /** Deadlines that have passed before the start are handled after it; left out for at once. */
  readonly beforeDeadlines?: Promise<void> | undefined
  /** Earlier epochs of the journal whose events have the same sequences now; left out for none. */
  readonly epochs?: ReadonlySet<string> | undefined
  /** Called when the store has been read again, because it may have another state than this gateway. */
  readonly onReloaded?: (() => void) | undefined
  /** Counts receipts. */
  readonly count?: ((outcome: ReceiptOutcome, receipts: number) => void) | undefined
  readonly clock?: Clock
  readonly log: Logger
  readonly bounds: Pick<ReceiptBounds, 'maxReceipts'> & Partial<ReceiptBounds>
}

/**
 * Opens the receipts. Deadlines that have passed since they were closed are handled at once.
 *
 * @throws rejects if the store cannot be read
 */
export async function openReceipts(options: ReceiptsOptions): Promise<OwnReceipts> {
  const { store, journal, log } = options
  const repository = new ReceiptRepository(store, journal.epoch, { ...defaultBounds, ...options.bounds })
  const lost = await repository.load(options.epochs)
  if (lost > 0) {
    log.warn(`${lost} events with requested receipts are lost with the journal`)
  }
  const receipts = new StoredReceipts(repository, options)
  await receipts.start()
  return receipts
}

class StoredReceipts implements OwnReceipts {
  readonly #repository: ReceiptRepository
  /** The epoch of the events that the receipts are about. */
  readonly #epoch: string
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
  #isExpiring = false
  /** The newest event before messages were published that may have to be published again. */
  #publishedAfter: number | undefined
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
    this.#epoch = options.journal.epoch
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#outbox = new Outbox({
      hasMessages: repository.messages > 0,
      waiting: (limit, isRepeated) => this.#enqueue(() => this.#waitingMessages(limit, isRepeated)),
      sent: keys => this.#enqueue(() => repository.sent(keys)),
      isSettled: options.isSettled,
      publisher: options.publisher,
      clock: this.#clock,
      log: options.log,
    })
    options.tracking.onWritten = (sequence, device) => this.#trackWritten(sequence, device)
  }

  get outstanding(): Receipts['outstanding'] {
    return this.#repository.quota.outstanding
  }

  async start(): Promise<void> {
    for await (const { sequence, topic, unwritten, awaited } of this.#repository.pending()) {
      this.#options.tracking.track(sequence, topic, unwritten, awaited)
    }
    const next = await this.#repository.nextDeadline()
    const { beforeDeadlines } = this.#options
    if (beforeDeadlines) void beforeDeadlines.then(() => this.#armNearer(next))
    else this.#armNearer(next)
    this.#outbox.wake()
    this.#trimSoon()
  }

  async #waitingMessages(limit: number, isRepeated: boolean): Promise<WaitingMessage[]> {
    const { journal, publisher } = this.#options
    if (!isRepeated) this.#publishedAfter = journal.head
    else if (publisher.connected) await this.#dropPublished()
    return this.#repository.waitingMessages(limit)
  }

  /** Drops messages that are in the journal: no answer came, or the former process, or gateway, has ended before that was stored. */
  async #dropPublished(): Promise<void> {
    const { journal, catchUp } = this.#options
    const messages = await this.#repository.waitingMessages(atOnce)
    if (messages.length === 0) return
    await catchUp?.()
    // They come after the events that they are about.
    const about = messages.map(({ payload }) => parseId(JSON.parse(payload).id)?.sequence ?? 0)
    const first = Math.max(this.#publishedAfter ?? Math.min(...about), journal.first - 1)
    const filters = [...new Set(messages.map(({ topic }) => topic))]
    const published = new Set<string>()
    for (let after = first; after < journal.head; ) {
      const query = { filters, after, through: journal.head, limit: batchSize, maxBytes: 1024 ** 2 }
      const { events, position } = await journal.read({ ...query, includesExpired: true })
      for (const { topic, payload } of events) published.add(`${topic}\n${payload}`)
      after = Math.max(position, after + 1)
    }
    const isPublished = messages.filter(({ topic, payload }) => published.has(`${topic}\n${payload}`))
    if (isPublished.length > 0) await this.#repository.sent(isPublished.map(({ key }) => key))
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
    if (recorded?.fresh) this.#stored()
    return recorded
  }

  async acknowledged(id: string, { device, user }: Pick<Receipt, 'device' | 'user'>): Promise<boolean> {
    const { epoch, sequence = 0 } = parseId(id) ?? {}
    // Most events ask for no receipts.
    if (epoch !== this.#options.journal.epoch || !this.#repository.isPending(sequence)) return false
    const recorded = await this.#enqueue(() => this.#recordAcknowledged(sequence, device, user))
    if (recorded) this.#stored()
    return recorded
  }

  #stored(): void {
    this.#options.count?.('stored', 1)
    this.#changed()
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

  reserve(topic: string, request: ReceiptRequest, by: string): ReceiptReservation {
    const { presence, bounds } = this.#options
    const options: ReservationOptions = {
      ...{ presence, quota: this.#repository.quota, maxReceipts: bounds.maxReceipts },
      request: (event, reserved) => this.request(event, reserved),
      acknowledge: (id, client) => this.#noteAcknowledged(id, client),
    }
    return reserveReceipts(options, topic, request, by)
  }

  async request({ id, sequence, topic, time }: ReceiptEvent, { within, ...request }: ReservedRequest): Promise<void> {
    const { tracking } = this.#options
    const { devices, by } = request
    const deadline = this.#clock.now() + within
    // Before the first await: the event is written at the end of this tick.
    const isTracked = tracking.track(sequence, topic, devices, { by, devices: devices.length })
    let isNew = false
    try {
      isNew = await this.#enqueue(async () => {
        await this.#trimStep()
        return this.#repository.request({ id, sequence, topic, time }, { ...request, deadline })
      })
    } finally {
      if (isTracked && !isNew) tracking.untrack(sequence)
    }
    if (isNew) this.#armNearer(deadline)
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
    const { journal, catchUp } = this.#options
    const { epoch, sequence = 0 } = parseId(id) ?? {}
    // Another gateway may have read further.
    if (epoch === journal.epoch && sequence > journal.head) await catchUp?.().catch(() => {})
    // Redis has lost the end of the journal since it was published.
    if (epoch !== journal.epoch && this.#repository.isPending(sequence)) {
      const asked = await this.#findAsked(sequence)
      return asked?.id === id ? asked : undefined
    }
    if (epoch !== journal.epoch || sequence < 1 || sequence > journal.head || this.#isGone(sequence)) return undefined
    const known = this.#cache.get(sequence)
    if (known) return known
    const journaled = sequence < journal.first ? undefined : await findJournaled(journal, sequence)
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
    this.wrote(written).catch(error => {
      if (!this.#closing) this.#options.log.warn({ err: error }, 'failed to store deliveries')
    })
  }

  wrote(written: ReadonlyMap<number, Iterable<string>>): Promise<void> {
    return this.#enqueue(() => this.#repository.wrote(written))
  }

  pending(after: number): Promise<readonly PendingRequest[]> {
    return this.#enqueue(async () => {
      const found: PendingRequest[] = []
      let devices = 0
      for await (const request of this.#repository.pending(after)) {
        found.push(request)
        devices += request.unwritten.length
        if (found.length >= pageSize || devices >= pageSize) break
      }
      return found
    })
  }

  /** Sets the timer for the nearest deadline. */
  #arm(deadline: number): void {
    this.#stopTimer?.()
    this.#stopTimer = undefined
    this.#deadline = deadline
    if (this.#closing) return
    const delay = Math.min(Math.max(0, deadline - this.#clock.now()), maxTimer)
    this.#stopTimer = this.#clock.after(delay, () => {
      void this.#expire()
    })
  }

  /** The same, unless a nearer one is set. */
  #armNearer(deadline: number | undefined): void {
    if (deadline !== undefined && deadline < this.#deadline) this.#arm(deadline)
  }

  /** Handles the deadlines that have passed. */
  async #expire(): Promise<void> {
    // Deadlines that are added meanwhile set their own timer, or are found below.
    this.#deadline = Number.POSITIVE_INFINITY
    this.#isExpiring = true
    try {
      for (;;) {
        const expired = await this.#enqueue(() => this.#repository.expireNext(this.#clock.now()))
        if (expired === undefined) break
        const { sequence, missed } = expired
        this.#options.count?.('missed', missed)
        this.#options.tracking.untrack(sequence)
        if (this.#isGone(sequence)) {
          this.#cache.delete(sequence)
          this.#trimmed = Math.min(this.#trimmed, sequence)
        }
        this.#changed()
      }
      this.#armNearer(await this.#enqueue(() => this.#repository.nextDeadline()))
    } catch (error) {
      if (this.#closing) return
      this.#options.log.warn({ err: error }, 'failed to store missed deadlines and will retry')
      this.#arm(this.#clock.now() + retryDelay)
    } finally {
      this.#isExpiring = false
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
        if (this.#epoch !== this.#options.journal.epoch) throw new Error('the journal has lost events')
        if (this.#stale) await this.#reload()
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

  async #reload(): Promise<void> {
    await this.#repository.load()
    this.#stale = false
    // A call that has failed may have been made nevertheless.
    if (!this.#isExpiring) this.#armNearer(await this.#repository.nextDeadline())
    if (this.#repository.messages > 0) this.#outbox.wake()
    this.#options.onReloaded?.()
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

/** @throws {GatewayError} rejects with `journal-unavailable` */
export async function findJournaled(
  journal: Pick<Journal, 'read'>,
  sequence: number,
): Promise<ReceiptEvent | undefined> {
  const query = { after: sequence - 1, through: sequence, limit: 1, maxBytes: 1, includesExpired: true }
  try {
    const [event] = (await journal.read(query)).events
    if (!event || isGapMarker(event)) return undefined
    return { id: event.id, sequence, topic: event.topic, time: event.time }
  } catch (error) {
    throw new GatewayError('journal-unavailable', { cause: error })
  }
}
