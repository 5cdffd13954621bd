import type { Clock } from '../../src/base/clock.js'
import type { GatewayError } from '../../src/base/errors.js'
import { createLog } from '../../src/base/log.js'
import { DeliveryTracker } from '../../src/hub/delivery-tracker.js'
import type { Event } from '../../src/journal/event.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import type { Message } from '../../src/mqtt/message.js'
import type { Presence } from '../../src/presence/presence.js'
import { openReceipts } from '../../src/receipts/open-receipts.js'
import type { ReceiptBounds } from '../../src/receipts/receipt-repository.js'
import type { ReceiptRequest, Receipts } from '../../src/receipts/receipts.js'
import type { Publisher } from '../../src/sources/publisher.js'
import type { KeyRange, Store, StoreChange } from '../../src/storage/store.js'
import { message, wide } from '../contracts/journal.js'
import type { StorePlace } from '../contracts/store.js'

const log = createLog({ level: 'silent', format: 'json' })

/** A clock that goes on when a test says so. */
export class TestClock implements Clock {
  #now = Date.UTC(2030, 0, 1)
  #timers: { time: number; run: () => void }[] = []

  readonly now = (): number => this.#now

  readonly monotonic = this.now

  after(milliseconds: number, run: () => void): () => void {
    const timer = { time: this.#now + milliseconds, run }
    this.#timers.push(timer)
    // What is due already happens by itself.
    if (milliseconds <= 0) setImmediate(() => this.pass(0))
    return () => {
      this.#timers = this.#timers.filter(other => other !== timer)
    }
  }

  /** How many timers there are. */
  get timers(): number {
    return this.#timers.length
  }

  /** Forgets what was to happen, as the end of a process does. */
  stop(): void {
    this.#timers = []
  }

  pass(milliseconds: number): void {
    const end = this.#now + milliseconds
    for (;;) {
      const [next] = this.#timers.filter(({ time }) => time <= end).sort((a, b) => a.time - b.time)
      if (!next) break
      this.#timers = this.#timers.filter(timer => timer !== next)
      this.#now = Math.max(this.#now, next.time)
      next.run()
    }
    this.#now = end
  }
}

/** What is told about receipts, as it comes to who listens to `receipts/#`. */
export interface Told {
  readonly topic: string
  readonly [member: string]: unknown
}

/** Writes down what is published. */
export class TestPublisher implements Publisher {
  connected = true
  /** What each publish fails with. */
  failsWith: GatewayError | undefined
  /** How often somebody tried. */
  attempts = 0
  readonly messages: Message[] = []

  async publish(published: Message): Promise<Event | undefined> {
    this.attempts++
    if (this.failsWith) throw this.failsWith
    this.messages.push(published)
    return undefined
  }

  /** What was published, with the topic that it was published on. */
  told(): Told[] {
    return this.messages.map(({ topic, payload }) => ({ on: topic, ...JSON.parse(payload.toString()) }))
  }
}

/** A store that takes nothing while its disk is full. */
class FailingStore implements Store {
  readonly inner: Store
  readonly #isFull: () => boolean

  constructor(inner: Store, isFull: () => boolean) {
    this.inner = inner
    this.#isFull = isFull
  }

  get(key: string): Promise<string | undefined> {
    return this.inner.get(key)
  }

  range(range: KeyRange, limit: number): Promise<(readonly [string, string])[]> {
    return this.inner.range(range, limit)
  }

  async batch(changes: readonly StoreChange[]): Promise<void> {
    if (this.#isFull()) throw new Error('no space left on device')
    await this.inner.batch(changes)
  }

  clear(range: KeyRange): Promise<void> {
    return this.inner.clear(range)
  }

  close(): Promise<void> {
    return this.inner.close()
  }
}

/** Devices that listen to any topic. */
export function presenceOf(devices: () => readonly string[]): Presence {
  return {
    enter: () => ({ seen: () => {}, add: () => {}, remove: () => {}, change: () => {}, leave: () => {} }),
    at: () => ({ count: 0, listeners: [] }),
    devicesAt: (_topic, limit) => devices().slice(0, limit),
    counts: () => ({ count: 0, topics: new Map() }),
    close: () => {},
  }
}

/** Receipts on a journal in memory, with a clock, a publisher and listeners of the test. */
export class ReceiptRig {
  readonly clock = new TestClock()
  readonly publisher = new TestPublisher()
  readonly journal: MemoryJournal
  /** Whether nothing can be written. */
  diskIsFull = false
  /** Those who listen, to any topic. */
  present: string[] = []
  receipts!: Receipts
  /** What the metrics have. */
  readonly counts = { stored: 0, missed: 0 }
  tracking = new DeliveryTracker()
  readonly presence = presenceOf(() => this.present)
  readonly #place: StorePlace
  readonly #bounds: Partial<ReceiptBounds>
  #store!: FailingStore

  private constructor(place: StorePlace, bounds: Partial<ReceiptBounds>, maxEvents: number) {
    this.#place = place
    this.#bounds = bounds
    this.journal = new MemoryJournal({ bounds: { ...wide, maxEvents }, log, clock: this.clock.now })
  }

  static async start(
    place: StorePlace,
    { maxEvents = 1000, ...bounds }: Partial<ReceiptBounds> & { maxEvents?: number } = {},
  ): Promise<ReceiptRig> {
    const rig = new ReceiptRig(place, bounds, maxEvents)
    await rig.open()
    return rig
  }

  /** Opens the receipts; with another journal, as after that was lost. */
  async open(journal = this.journal): Promise<void> {
    this.#store = new FailingStore(await this.#place.open(), () => this.diskIsFull)
    this.tracking = new DeliveryTracker()
    const { clock, publisher, presence, tracking } = this
    const bounds = { maxReceipts: 1000, ...this.#bounds }
    this.receipts = await openReceipts({
      store: this.#store,
      journal,
      publisher,
      presence,
      tracking,
      clock,
      log,
      bounds,
      count: (outcome, receipts) => {
        this.counts[outcome] += receipts
      },
    })
  }

  /** Ends it as the sudden end of the process does. */
  async crash(): Promise<void> {
    this.clock.stop()
    this.tracking.onWritten = () => {}
    await this.#place.crash(this.#store.inner)
  }

  /** How many texts are kept. */
  async entries(): Promise<number> {
    return (await this.#store.range({ gte: '', lt: '~' }, 1000)).length
  }

  async restart(): Promise<void> {
    await this.receipts.close()
    await this.open()
  }

  /** Asks for receipts of an event that is just published. */
  async ask(event: Event, request: ReceiptRequest, by = 'somebody'): Promise<void> {
    await this.receipts.reserve(event.topic, request, by).confirm(event)
  }

  publish(topic = 'news', payload = ''): Promise<Event> {
    return this.journal.append(message(topic, payload))
  }

  async close(): Promise<void> {
    await this.receipts.close()
    await this.journal.close()
    await this.#place.dispose()
  }
}
