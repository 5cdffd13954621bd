import { setTimeout as delay } from 'node:timers/promises'
import { GatewayError } from '../base/errors.js'
import type { DeliveryTracker } from '../hub/delivery-tracker.js'
import { type Event, parseId } from '../journal/event.js'
import type { Publisher } from '../sources/publisher.js'
import { CoordinatedPart, type Coordinator } from '../storage/coordinator.js'
import { type CoordinatorCalls, type News, openCoordinatorCalls } from '../storage/coordinator-calls.js'
import type { SharedRedis } from '../storage/shared-redis.js'
import type { Store } from '../storage/store.js'
import { defaultBounds, findJournaled, type OwnReceipts, openReceipts, type ReceiptsOptions } from './open-receipts.js'
import { ReceiptQuota } from './receipt-quota.js'
import type { PendingRequest } from './receipt-repository.js'
import type { Receipt, ReceiptReport, ReceiptRequest, ReceiptReservation, Receipts, ReportOptions } from './receipts.js'
import type { ReceiptEvent } from './records.js'
import { type ReservedRequest, reserveReceipts } from './reservation.js'

export interface SharedReceiptsOptions extends Omit<ReceiptsOptions, 'store' | 'tracking' | 'onReloaded'> {
  readonly shared: SharedRedis
  readonly coordinator: Coordinator
  /** Opens the store that gateways share, for the holder of a token. */
  readonly openStore: (token: string) => Store
  readonly catchUp: () => Promise<void>
  /** Deliveries of this gateway: the hub's. */
  readonly tracking: DeliveryTracker
}

/** A call of the coordinator, as JSON; the answer is that of the method. */
type Call =
  | { readonly do: 'record'; readonly id: string; readonly receipt: Omit<Receipt, 'time'> }
  | { readonly do: 'acknowledged'; readonly id: string; readonly client: Pick<Receipt, 'device' | 'user'> }
  | { readonly do: 'request'; readonly event: ReceiptEvent; readonly request: ReservedRequest }
  | { readonly do: 'report'; readonly id: string; readonly options: ReportOptions }
  | { readonly do: 'topicOf'; readonly id: string }
  | { readonly do: 'wrote'; readonly written: readonly (readonly [sequence: number, devices: readonly string[]])[] }
  | { readonly do: 'pending'; readonly after: number }

/** What the coordinator tells all gateways, as JSON: `began` if everything may have changed. */
type Change = 'began' | { readonly requested: PendingRequest } | { readonly closed: number }

/** The receipts of the coordinator. */
interface OwnPart {
  readonly receipts: OwnReceipts
  close(): Promise<void>
}

/** Time until deliveries are reported again, or requests are read again, after a failure, in milliseconds. */
const retryDelay = 1000
/** Devices of one report of deliveries. */
const maxReported = 1000
/** Time limit of `close` for the last deliveries, in milliseconds. */
const closeTime = 1000

/**
 * Opens the receipts that several gateways share: the coordinator stores them, and the others call it.
 *
 * @throws {StartError} if Redis cannot be reached
 */
export async function openSharedReceipts(options: SharedReceiptsOptions): Promise<Receipts> {
  const { shared, coordinator, log } = options
  let receipts: SharedReceipts | undefined
  const calls = await openCoordinatorCalls({
    ...{ shared, coordinator, name: 'receipts', log },
    onNews: news => receipts?.takeNews(news),
    onReconnected: () => receipts?.readPendingSoon(),
  })
  receipts = new SharedReceipts(options, calls)
  return receipts
}

class SharedReceipts implements Receipts {
  readonly #options: SharedReceiptsOptions
  readonly #calls: CoordinatorCalls
  readonly #part: CoordinatedPart<OwnPart>
  readonly #pending: PendingRequests
  readonly #unwatch: () => void
  /** Deliveries that are not reported yet: devices by sequence. */
  readonly #written = new Map<number, Set<string>>()
  #writtenTimer: NodeJS.Timeout | undefined
  #reading: Promise<void> | undefined
  #readingTimer: NodeJS.Timeout | undefined
  /** Requests that were closed while the pending ones are being read. */
  readonly #closedMeanwhile = new Set<number>()
  /** Epochs of the journal since the start, in which sequences go on. */
  readonly #epochs = new Set<string>()
  #isClosed = false

  constructor(options: SharedReceiptsOptions, calls: CoordinatorCalls) {
    const { tracking, coordinator, journal, bounds, log } = options
    this.#options = options
    this.#calls = calls
    this.#pending = new PendingRequests(tracking, new ReceiptQuota({ ...defaultBounds, ...bounds }))
    tracking.remember()
    tracking.onWritten = (sequence, device) => this.#trackWritten(sequence, device)
    this.#part = new CoordinatedPart(coordinator, token => this.#open(token), log)
    this.#epochs.add(journal.epoch)
    this.#unwatch = journal.watch(() => {
      if (this.#epochs.has(journal.epoch)) return
      this.#epochs.add(journal.epoch)
      this.#part.reopen()
    })
  }

  get outstanding(): Receipts['outstanding'] {
    return this.#pending.quota.outstanding
  }

  async record(
    id: string,
    receipt: Omit<Receipt, 'time'>,
  ): Promise<{ readonly receipt: Receipt; readonly fresh: boolean } | undefined> {
    return this.#call({ do: 'record', id, receipt })
  }

  async acknowledged(id: string, client: Pick<Receipt, 'device' | 'user'>): Promise<boolean> {
    return this.#call({ do: 'acknowledged', id, client })
  }

  reserve(topic: string, request: ReceiptRequest, by: string): ReceiptReservation {
    const { presence, bounds, log } = this.#options
    const options = {
      ...{ presence, quota: this.#pending.quota, maxReceipts: bounds.maxReceipts },
      request: async (event: Event, reserved: ReservedRequest, release: () => void): Promise<void> => {
        const { id, sequence, topic: on, time } = event
        this.#pending.releases.set(sequence, release)
        const call: Call = { do: 'request', event: { id, sequence, topic: on, time }, request: reserved }
        await this.#call(call).finally(() => this.#pending.releases.delete(sequence))
      },
      acknowledge: (id: string, client: Pick<Receipt, 'device' | 'user'>): void => {
        this.acknowledged(id, client).catch(error => log.warn({ err: error }, 'failed to store an acknowledgement'))
      },
    }
    return reserveReceipts(options, topic, request, by)
  }

  report(id: string, options: ReportOptions = {}): Promise<ReceiptReport | undefined> {
    return this.#call({ do: 'report', id, options })
  }

  async topicOf(id: string): Promise<string | undefined> {
    const { journal } = this.#options
    const { epoch, sequence = 0 } = parseId(id) ?? {}
    const isHere = epoch === journal.epoch && sequence >= journal.first && sequence <= journal.head
    const event = isHere ? await findJournaled(journal, sequence) : undefined
    return event ? event.topic : this.#call({ do: 'topicOf', id })
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#unwatch()
    if (this.#written.size > 0) await Promise.race([this.#reportWritten(), delay(closeTime, undefined, { ref: false })])
    this.#isClosed = true
    clearTimeout(this.#writtenTimer)
    clearTimeout(this.#readingTimer)
    await this.#part.close()
    await this.#calls.close()
    await this.#reading
  }

  // Calls

  /** @throws {GatewayError} rejects with `journal-unavailable` */
  async #call<T>(call: Call): Promise<T> {
    const own = this.#part.current
    try {
      if (own) return (await perform(own.receipts, call)) as T
    } catch (error) {
      // Another gateway is the coordinator now: what it does a second time has no effect.
      if (this.#part.current === own) throw error
    }
    const text = await this.#calls.call(JSON.stringify(call)).catch(cause => {
      throw new GatewayError('journal-unavailable', { cause })
    })
    return text === '' ? (undefined as T) : JSON.parse(text)
  }

  async #open(token: string): Promise<OwnPart> {
    const { catchUp, openStore, log, shared: _shared, coordinator, publisher, ...options } = this.#options
    await catchUp()
    this.#pending.clear()
    let isTold = false
    let onServed = (): void => {}
    const served = new Promise<void>(resolve => {
      onServed = resolve
    })
    const tell = (change: Change): void => {
      if (isTold) this.#calls.tell(JSON.stringify(change))
    }
    const receipts = await openReceipts({
      ...{ ...options, log, catchUp, store: openStore(token), beforeDeadlines: served, epochs: this.#epochs },
      publisher: whileHeld(publisher, () => coordinator.token === token),
      isSettled: () => coordinator.isBrokerSettled,
      tracking: {
        onWritten: () => {},
        track: (sequence, topic, unwritten, awaited) => {
          const isNew = this.#pending.add({ sequence, topic, unwritten, awaited })
          if (isNew) tell({ requested: { sequence, topic, unwritten, awaited } })
          return isNew
        },
        untrack: sequence => {
          this.#pending.remove(sequence)
          tell({ closed: sequence })
        },
      },
      onReloaded: () => {
        tell('began')
        this.readPendingSoon()
      },
    })
    const handle = async (body: string): Promise<string> =>
      JSON.stringify(await perform(receipts, JSON.parse(body))) ?? ''
    void this.#calls.serve({ token, handle }).then(onServed)
    isTold = true
    tell('began')
    log.info('this gateway stores the receipts')
    return {
      receipts,
      close: async () => {
        this.#calls.stopServing()
        await receipts.close()
      },
    }
  }

  // Deliveries

  #trackWritten(sequence: number, device: string): void {
    if (this.#written.size === 0) setImmediate(() => void this.#reportWritten())
    const devices = this.#written.get(sequence) ?? new Set()
    this.#written.set(sequence, devices.add(device))
  }

  /** Reports the deliveries, in parts that keep neither the coordinator nor Redis busy for long. */
  async #reportWritten(): Promise<void> {
    while (!this.#isClosed && this.#written.size > 0) {
      const written = this.#takeWritten()
      try {
        await this.#call({ do: 'wrote', written: [...written].map(([sequence, devices]) => [sequence, [...devices]]) })
      } catch {
        for (const [sequence, devices] of written) {
          this.#written.set(sequence, new Set([...devices, ...(this.#written.get(sequence) ?? [])]))
        }
        clearTimeout(this.#writtenTimer)
        if (!this.#isClosed) this.#writtenTimer = setTimeout(() => void this.#reportWritten(), retryDelay)
        return
      }
    }
  }

  #takeWritten(): Map<number, Set<string>> {
    const taken = new Map<number, Set<string>>()
    let left = maxReported
    for (const [sequence, devices] of this.#written) {
      const some = [...devices].slice(0, left)
      left -= some.length
      for (const device of some) devices.delete(device)
      if (devices.size === 0) this.#written.delete(sequence)
      if (some.length > 0) taken.set(sequence, new Set(some))
      if (left === 0) break
    }
    return taken
  }

  // Pending requests

  takeNews({ body, isNext }: News): void {
    const change: Change = JSON.parse(body)
    if (change !== 'began') {
      if ('requested' in change) this.#pending.add(change.requested)
      else {
        if (this.#reading) this.#closedMeanwhile.add(change.closed)
        this.#pending.remove(change.closed)
      }
    }
    if (change === 'began' || !isNext) this.readPendingSoon()
  }

  /** Reads the pending requests of the coordinator, which replace the known ones. */
  readPendingSoon(): void {
    clearTimeout(this.#readingTimer)
    if (this.#isClosed) return
    if (this.#reading) {
      this.#readingTimer = setTimeout(() => this.readPendingSoon(), retryDelay)
      return
    }
    this.#reading = this.#readPending()
      .catch(() => {
        this.#readingTimer = setTimeout(() => this.readPendingSoon(), retryDelay)
      })
      .finally(() => {
        this.#reading = undefined
      })
  }

  async #readPending(): Promise<void> {
    const former = new Set(this.#pending.sequences)
    this.#closedMeanwhile.clear()
    for (let after = 0; ; ) {
      const requests = await this.#call<readonly PendingRequest[]>({ do: 'pending', after })
      const last = requests.at(-1)
      if (!last) break
      after = last.sequence
      for (const request of requests) {
        former.delete(request.sequence)
        if (!this.#closedMeanwhile.has(request.sequence)) this.#pending.add(request)
      }
    }
    for (const sequence of former) this.#pending.remove(sequence)
  }
}

/** A publisher that is not connected once another gateway may be the coordinator, which publishes the same messages. */
function whileHeld(publisher: Publisher, isHeld: () => boolean): Publisher {
  return {
    get connected() {
      return publisher.connected && isHeld()
    },
    publish: (message, options) => publisher.publish(message, options),
  }
}

/** The requests of all gateways whose deadline has not passed, as this gateway knows them. */
class PendingRequests {
  readonly quota: ReceiptQuota
  /** By sequence, functions that release the quota of requests that are being stored. */
  readonly releases = new Map<number, () => void>()
  readonly #tracking: DeliveryTracker
  readonly #requests = new Map<number, PendingRequest['awaited']>()

  constructor(tracking: DeliveryTracker, quota: ReceiptQuota) {
    this.#tracking = tracking
    this.quota = quota
  }

  get sequences(): Iterable<number> {
    return this.#requests.keys()
  }

  /** @returns whether it was not known */
  add({ sequence, topic, unwritten, awaited }: PendingRequest): boolean {
    if (this.#requests.has(sequence)) return false
    this.#requests.set(sequence, awaited)
    this.releases.get(sequence)?.()
    this.quota.add(awaited)
    this.#tracking.track(sequence, topic, unwritten)
    return true
  }

  remove(sequence: number): void {
    const awaited = this.#requests.get(sequence)
    if (!awaited) return
    this.#requests.delete(sequence)
    this.quota.remove(awaited)
    this.#tracking.untrack(sequence)
  }

  clear(): void {
    for (const sequence of [...this.#requests.keys()]) this.remove(sequence)
  }
}

async function perform(receipts: OwnReceipts, call: Call): Promise<unknown> {
  switch (call.do) {
    case 'record':
      return receipts.record(call.id, call.receipt)
    case 'acknowledged':
      return receipts.acknowledged(call.id, call.client)
    case 'request':
      return receipts.request(call.event, call.request)
    case 'report':
      return receipts.report(call.id, call.options)
    case 'topicOf':
      return receipts.topicOf(call.id)
    case 'wrote':
      return receipts.wrote(new Map(call.written))
    case 'pending':
      return receipts.pending(call.after)
  }
}
