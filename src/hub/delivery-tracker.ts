import { type TopicPredicate, topicPredicate } from '../topics/match.js'

/** An event of which somebody wants to know to whom it is written. */
interface Tracked {
  readonly sequence: number
  readonly topic: string
  /** Devices to which it has not been written yet. */
  readonly devices: Set<string>
}

/** Tells which events have been written to the connections of which devices: of those that are tracked, and no others. */
export class DeliveryTracker {
  /** In the order of their sequences. */
  readonly #events: Tracked[] = []
  /** Told of each device and event once. It must not throw. */
  onWritten: (sequence: number, device: string) => void = () => {}

  /** How many events are tracked. */
  get size(): number {
    return this.#events.length
  }

  /** Tracks an event until it has been written to all of these devices; tells whether it was not tracked before. */
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

  /** A device has been written one event. */
  wroteOne(device: string, sequence: number): void {
    const at = this.#after(sequence - 1)
    const event = this.#events[at]
    if (event?.sequence !== sequence || !event.devices.delete(device)) return
    if (event.devices.size === 0) this.#events.splice(at, 1)
    this.onWritten(sequence, device)
  }

  /** A device has been written all events after `after`, up to `through`, that `filters` match. */
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

  /** The place of the first event after a sequence. */
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
