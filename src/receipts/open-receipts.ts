import { type Clock, systemClock } from '../base/clock.js'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { DeliveryTracker } from '../hub/delivery-tracker.js'
import { type Event, isGapMarker, parseId } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'
import type { Presence } from '../presence/presence.js'
import type { Publisher } from '../sources/publisher.js'
import { Outbox } from './outbox.js'
import { type NewRequest, type ReceiptBounds, ReceiptRepository } from './receipt-repository.js'
import type { Receipt, ReceiptReport, ReceiptRequest, ReceiptReservation, Receipts, ReportOptions } from './receipts.js'
import type { ReceiptEvent } from './records.js'
import type { ReceiptStore } from './store.js'

/** Bounds that nobody needs to change. */
const defaultBounds = { maxRequests: 100_000, maxMessages: 10_000, topic: { topicLevels: 100, topicLength: 65_535 } }
/** Events whose topic and time are remembered, so that a thousand receipts of one do not read it a thousand times. */
const maxKnown = 1024
/** Receipts that a report has, where nobody says how many. */
const reportLimit = 1000
/** The longest timer; the machine's time may be set meanwhile. */
const longestTimer = 60_000
/** How long to wait after the store did not do what it should; in milliseconds. */
const retryDelay = 1000
/** How often the log says that messages were let go of, at most; in milliseconds. */
const warningInterval = 60_000

export interface ReceiptsOptions {
  /** Closed with the receipts. */
  readonly store: ReceiptStore
  /** What has the events. */
  readonly journal: Journal
  readonly publisher: Publisher
  readonly presence: Presence
  /** Tells to whom events are written: the hub's. */
  readonly tracking: DeliveryTracker
  readonly clock?: Clock
  readonly log: Logger
  readonly bounds: Pick<ReceiptBounds, 'maxReceipts'> & Partial<ReceiptBounds>
}

/**
 * Opens what keeps receipts. Deadlines that have passed in the meantime are dealt with at once.
 *
 * @throws rejects where the store cannot be read
 */
export async function openReceipts(options: ReceiptsOptions): Promise<Receipts> {
  const { store, journal, log } = options
  const book = new ReceiptRepository(store, journal.epoch, { ...defaultBounds, ...options.bounds })
  const lost = await book.load()
  if (lost > 0) {
    log.warn(`${lost} events whose receipts were waited for are lost with the journal, or are from an older mqway`)
  }
  const receipts = new KeptReceipts(book, options)
  await receipts.start()
  return receipts
}

class KeptReceipts implements Receipts {
  readonly #book: ReceiptRepository
  readonly #options: ReceiptsOptions
  readonly #clock: Clock
  readonly #outbox: Outbox
  readonly #known = new Map<number, ReceiptEvent>()
  /** Ends when all that was begun with the book is done. */
  #turn: Promise<unknown> = Promise.resolve()
  /** Whether the book has to be read again, as nobody knows what a failed call has changed. */
  #stale = false
  /** The nearest deadline, and what stops its timer. */
  #deadline = Number.POSITIVE_INFINITY
  #stopTimer: (() => void) | undefined
  /** What was written to whom, and is not in the book yet. */
  #written = new Map<number, Set<string>>()
  /** Events before this one have been forgotten. */
  #trimmed = 0
  #trimming = false
  /** Of how many messages and receipts the log has said that they were not told, and when. */
  #said = { dropped: 0, untold: 0, time: Number.NEGATIVE_INFINITY }
  #closing: Promise<void> | undefined

  constructor(book: ReceiptRepository, options: ReceiptsOptions) {
    this.#book = book
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#outbox = new Outbox({
      waiting: limit => this.#inTurn(() => book.waitingMessages(limit)),
      sent: keys => this.#inTurn(() => book.sent(keys)),
      publisher: options.publisher,
      clock: this.#clock,
      log: options.log,
    })
    options.tracking.onWritten = (sequence, device) => this.#note(sequence, device)
  }

  async start(): Promise<void> {
    for await (const { sequence, request, unwritten } of this.#book.pending()) {
      this.#options.tracking.track(sequence, request.topic, unwritten)
    }
    this.#arm(await this.#book.nextDeadline())
    this.#outbox.wake()
    this.#trimSoon()
  }

  async record(
    id: string,
    receipt: Omit<Receipt, 'time'>,
  ): Promise<{ readonly receipt: Receipt; readonly fresh: boolean } | undefined> {
    const event = await this.#find(id)
    if (!event) return undefined
    const recorded = await this.#inTurn(async () => {
      // What was trimmed in the meantime would stay.
      if (this.#isGone(event.sequence)) return undefined
      await this.#trimStep()
      return this.#book.record(event, receipt, this.#clock.now())
    })
    if (recorded?.fresh) this.#wrote()
    return recorded
  }

  reserve(topic: string, { from, within }: ReceiptRequest, by: string): ReceiptReservation {
    const { presence, bounds } = this.#options
    const { awaited } = this.#book
    const devices = new Set(from === 'present' ? [] : from)
    if (from === 'present' || devices.delete('present')) {
      // One more than there may be is too many, and refused.
      for (const device of presence.devicesAt(topic, bounds.maxReceipts + 1)) devices.add(device)
    }
    const wanted = { by, devices: devices.size }
    awaited.require(wanted)
    awaited.add(wanted)
    let isTaken = true
    const cancel = (): void => {
      if (isTaken) awaited.remove(wanted)
      isTaken = false
    }
    const confirm = (event: Event): Promise<void> =>
      this.#request(event, { from, by, devices: [...devices], deadline: this.#clock.now() + within }).finally(cancel)
    return { confirm, cancel }
  }

  async #request({ id, sequence, topic, time }: Event, request: NewRequest): Promise<void> {
    const { tracking } = this.#options
    const { devices, deadline } = request
    // Before anything is waited for: at the end of this turn of the event loop, the event is written.
    const isTracked = tracking.track(sequence, topic, devices)
    let isNew = false
    try {
      isNew = await this.#inTurn(async () => {
        await this.#trimStep()
        return this.#book.request({ id, sequence, topic, time }, request)
      })
    } finally {
      if (isTracked && !isNew) tracking.untrack(sequence)
    }
    if (isNew && deadline < this.#deadline) this.#arm(deadline)
  }

  async report(id: string, options: ReportOptions = {}): Promise<ReceiptReport | undefined> {
    const event = await this.#find(id)
    return event && this.#inTurn(() => this.#book.report(event, { ...options, limit: options.limit ?? reportLimit }))
  }

  async topicOf(id: string): Promise<string | undefined> {
    return (await this.#find(id))?.topic
  }

  /** Finds an event; one whose deadline is to come is known although the journal has let go of it. */
  async #find(id: string): Promise<ReceiptEvent | undefined> {
    const { journal } = this.#options
    const { epoch, sequence = 0 } = parseId(id) ?? {}
    if (epoch !== journal.epoch || sequence < 1 || sequence > journal.head || this.#isGone(sequence)) return undefined
    const known = this.#known.get(sequence)
    if (known) return known
    const journaled = sequence < journal.first ? undefined : await this.#findJournaled(sequence)
    const found = journaled ?? (await this.#findAsked(sequence))
    if (!found) return undefined
    if (this.#known.size >= maxKnown) {
      const [oldest] = this.#known.keys()
      if (oldest !== undefined) this.#known.delete(oldest)
    }
    this.#known.set(sequence, found)
    return found
  }

  #isGone(sequence: number): boolean {
    return sequence < this.#options.journal.first && !this.#book.isPending(sequence)
  }

  async #findAsked(sequence: number): Promise<ReceiptEvent | undefined> {
    const request = await this.#inTurn(() => this.#book.requestOf(sequence))
    return request && { id: request.id, sequence, topic: request.topic, time: request.time }
  }

  async #findJournaled(sequence: number): Promise<ReceiptEvent | undefined> {
    const query = { after: sequence - 1, through: sequence, limit: 1, maxBytes: 1 }
    try {
      const [event] = (await this.#options.journal.read(query)).events
      if (!event || isGapMarker(event)) return undefined
      return { id: event.id, sequence, topic: event.topic, time: event.time }
    } catch (error) {
      throw new GatewayError('journal-unavailable', { cause: error })
    }
  }

  /** Something was added to the book. */
  #wrote(): void {
    this.#outbox.wake()
    this.#trimSoon()
    const { dropped, untold } = this.#book
    const time = this.#clock.now()
    const news = { dropped: dropped - this.#said.dropped, untold: untold - this.#said.untold }
    if (news.dropped + news.untold === 0 || time - this.#said.time < warningInterval) return
    this.#said = { dropped, untold, time }
    const { log } = this.#options
    if (news.dropped > 0) log.warn(`${news.dropped} messages on receipts/# could not wait for the broker any longer`)
    if (news.untold > 0) log.warn(`${news.untold} receipts that nobody waits for are kept, and too many to be told of`)
  }

  /** Notes that an event was written to a device; what comes in one turn of the event loop is noted at once. */
  #note(sequence: number, device: string): void {
    if (this.#written.size === 0) setImmediate(() => this.#keepWritten())
    const devices = this.#written.get(sequence) ?? new Set()
    this.#written.set(sequence, devices.add(device))
  }

  #keepWritten(): void {
    const written = this.#written
    this.#written = new Map()
    this.#inTurn(() => this.#book.wrote(written)).catch(error => {
      if (!this.#closing) this.#options.log.warn({ err: error }, 'to whom events were written could not be kept')
    })
  }

  /** Sees to it that `deadline`, which is the nearest, is not missed. */
  #arm(deadline = Number.POSITIVE_INFINITY): void {
    this.#stopTimer?.()
    this.#stopTimer = undefined
    this.#deadline = deadline
    if (this.#closing || deadline === Number.POSITIVE_INFINITY) return
    const delay = Math.min(Math.max(0, deadline - this.#clock.now()), longestTimer)
    this.#stopTimer = this.#clock.after(delay, () => {
      void this.#expire()
    })
  }

  /** Deals with the deadlines that have passed. */
  async #expire(): Promise<void> {
    // Those that come while this goes on are armed for, or found by it.
    this.#deadline = Number.POSITIVE_INFINITY
    try {
      for (;;) {
        const sequence = await this.#inTurn(() => this.#book.expireNext(this.#clock.now()))
        if (sequence === undefined) break
        this.#options.tracking.untrack(sequence)
        if (this.#isGone(sequence)) {
          this.#known.delete(sequence)
          this.#trimmed = Math.min(this.#trimmed, sequence)
        }
        this.#wrote()
      }
      const next = await this.#inTurn(() => this.#book.nextDeadline())
      if (next !== undefined && next < this.#deadline) this.#arm(next)
    } catch (error) {
      if (this.#closing) return
      this.#options.log.warn({ err: error }, 'receipts that are missing could not be noted; this is tried again')
      this.#arm(this.#clock.now() + retryDelay)
    }
  }

  /** Forgets in the background what is known of events that the journal has let go of. */
  #trimSoon(): void {
    if (this.#trimming || this.#trimmed >= this.#options.journal.first) return
    this.#trimming = true
    this.#trim()
      .catch(error => {
        if (!this.#closing) this.#options.log.warn({ err: error }, 'receipts of old events could not be forgotten')
      })
      .finally(() => {
        this.#trimming = false
      })
  }

  async #trim(): Promise<void> {
    while (!this.#closing && this.#trimmed < this.#options.journal.first) await this.#inTurn(() => this.#trimStep())
  }

  /** Forgets a portion, so that nothing that counts has to go instead. */
  async #trimStep(): Promise<void> {
    const { first } = this.#options.journal
    const from = this.#trimmed
    if (from >= first) return
    // An event whose deadline passes meanwhile may be behind it.
    this.#trimmed = first
    try {
      this.#trimmed = Math.min(this.#trimmed, (await this.#book.trim(first, from)) ?? first)
    } catch (error) {
      this.#trimmed = from
      throw error
    }
  }

  /** Does something with the book when what was begun before is done. */
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const current = this.#turn.then(async () => {
      try {
        if (this.#stale) await this.#book.load()
        this.#stale = false
        return await task()
      } catch (error) {
        if (error instanceof GatewayError) throw error
        this.#stale = true
        throw new GatewayError('journal-unavailable', { cause: error })
      }
    })
    this.#turn = current.catch(() => {})
    return current
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stopTimer?.()
    await this.#outbox.close()
    if (this.#written.size > 0) this.#keepWritten()
    await this.#turn
    await this.#options.store.close()
  }
}
