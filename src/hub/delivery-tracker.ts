import { type TopicPredicate, topicPredicate } from '../topics/match.js'

interface Tracked {
  readonly sequence: number
  readonly topic: string
  /** Devices to which it has not been delivered yet. */
  readonly devices: Set<string>
}

/** Deliveries to one subscription: all events after `after`, up to `through`, that match its filters. */
interface Range {
  readonly subscription: object
  readonly filters: readonly string[]
  readonly after: number
  through: number
}

/** How long deliveries are remembered at least, in milliseconds; of how many devices, and how many subscriptions of one. */
const [memoryTime, maxDevices, maxRanges] = [15_000, 100_000, 64]

/** The last deliveries to each device. */
class DeliveryMemory {
  #recent = new Map<string, Range[]>()
  #former = new Map<string, Range[]>()
  #end = 0

  add(device: string, subscription: object, filters: readonly string[], after: number, through: number): void {
    const ranges = this.#rangesOf(device)
    const known = ranges.findLast(range => range.subscription === subscription && range.filters === filters)
    // What a subscription did not get in between did not match.
    if (known && after >= known.through) known.through = through
    else ranges.push({ subscription, filters, after, through })
    if (ranges.length > maxRanges) ranges.shift()
  }

  /** Call when a subscription of a device does not get all events that match. */
  forget(device: string): void {
    this.#recent.delete(device)
    this.#former.delete(device)
  }

  has(device: string, sequence: number, topic: string): boolean {
    const ranges = this.#recent.get(device) ?? this.#former.get(device) ?? []
    return ranges.some(
      ({ filters, after, through }) => after < sequence && sequence <= through && topicPredicate(filters)(topic),
    )
  }

  #rangesOf(device: string): Range[] {
    const now = performance.now()
    if (now >= this.#end || this.#recent.size >= maxDevices) {
      this.#former = this.#recent
      this.#recent = new Map()
      this.#end = now + memoryTime
    }
    let ranges = this.#recent.get(device)
    if (!ranges) {
      ranges = this.#former.get(device) ?? []
      this.#recent.set(device, ranges)
    }
    return ranges
  }
}

/** Tracks the delivery of single events to devices. */
export class DeliveryTracker {
  /** By sequence, ascending. */
  readonly #events: Tracked[] = []
  /** Called once for each device and event. It must not throw. */
  onWritten: (sequence: number, device: string) => void = () => {}

  #memory: DeliveryMemory | undefined

  get size(): number {
    return this.#events.length
  }

  /** Whether deliveries are of interest. */
  get isActive(): boolean {
    return this.#memory !== undefined || this.#events.length > 0
  }

  /** Remembers deliveries for some seconds, for events that are tracked after they have been written: another gateway may have published them. */
  remember(): void {
    this.#memory = new DeliveryMemory()
  }

  /** To be called when a device has not got all events that it subscribed to. */
  hasGap(device: string): void {
    this.#memory?.forget(device)
  }

  /** Tracks an event until it has been written to all of these devices. @returns whether it was not tracked before */
  track(sequence: number, topic: string, devices: Iterable<string>): boolean {
    const at = this.#after(sequence)
    if (this.#events[at - 1]?.sequence === sequence) return false
    const tracked = { sequence, topic, devices: new Set(devices) }
    const written = [...tracked.devices].filter(device => this.#memory?.has(device, sequence, topic))
    for (const device of written) tracked.devices.delete(device)
    if (tracked.devices.size > 0) this.#events.splice(at, 0, tracked)
    for (const device of written) this.onWritten(sequence, device)
    return true
  }

  untrack(sequence: number): void {
    const at = this.#after(sequence - 1)
    if (this.#events[at]?.sequence === sequence) this.#events.splice(at, 1)
  }

  /** To be called when one event has been written to a device. */
  wroteOne(device: string, sequence: number): void {
    const at = this.#after(sequence - 1)
    const event = this.#events[at]
    if (event?.sequence !== sequence || !event.devices.delete(device)) return
    if (event.devices.size === 0) this.#events.splice(at, 1)
    this.onWritten(sequence, device)
  }

  /**
   * To be called when all events after `after`, up to `through`, that match `filters` have been written to a device; for each subscription in their
   * order, except after `hasGap`.
   */
  wrote(device: string, subscription: object, filters: readonly string[], after: number, through: number): void {
    this.#memory?.add(device, subscription, filters, after, through)
    let wants: TopicPredicate | undefined
    for (let at = this.#after(after); at < this.#events.length; at++) {
      const event = this.#events[at]
      if (!event || event.sequence > through) return
      if (!event.devices.has(device)) continue
      wants ??= topicPredicate(filters)
      if (!wants(event.topic)) continue
      event.devices.delete(device)
      if (event.devices.size === 0) this.#events.splice(at--, 1)
      this.onWritten(event.sequence, device)
    }
  }

  /** The index of the first event after a sequence. */
  #after(sequence: number): number {
    let [low, high] = [0, this.#events.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#events[middle]?.sequence ?? 0) <= sequence) low = middle + 1
      else high = middle
    }
    return low
  }
}
