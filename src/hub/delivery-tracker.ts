import { type TopicPredicate, topicPredicate } from '../topics/match.js'

interface Tracked {
  readonly sequence: number
  readonly topic: string
  /** Devices to which it has not been delivered yet. */
  readonly devices: Set<string>
}

/** Tracks the delivery of single events to devices. */
export class DeliveryTracker {
  /** By sequence, ascending. */
  readonly #events: Tracked[] = []
  /** Called once for each device and event. It must not throw. */
  onWritten: (sequence: number, device: string) => void = () => {}

  get size(): number {
    return this.#events.length
  }

  /** Tracks an event until it has been written to all of these devices. @returns whether it was not tracked before */
  track(sequence: number, topic: string, devices: Iterable<string>): boolean {
    const at = this.#after(sequence)
    if (this.#events[at - 1]?.sequence === sequence) return false
    const tracked = { sequence, topic, devices: new Set(devices) }
    if (tracked.devices.size > 0) this.#events.splice(at, 0, tracked)
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

  /** To be called when all events after `after`, up to `through`, that match `filters` have been written to a device. */
  wrote(device: string, filters: readonly string[], after: number, through: number): void {
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
