import type { SliceCause } from './slice-monitor.js'
import type { TimeSlicer } from './time-slicer.js'

interface Entry<K> {
  readonly key: K
  readonly time: number
  /** In the heap. */
  position: number
}

/** Interval between two checks, at least, in milliseconds: deadlines shortly after each other share a timer. */
const minDelay = 50
/** The longest delay of `setTimeout`. */
const maxDelay = 2 ** 31 - 1

export interface DeadlinesOptions<K> {
  /** Called for each key whose deadline has passed, one after the other. */
  readonly onDue: (key: K) => Promise<void> | void
  readonly onError: (error: unknown) => void
  readonly slicer: TimeSlicer
  readonly cause: SliceCause
}

/**
 * Deadlines of any number of keys, with one timer for all, and work in time slices.
 *
 * A binary heap, in which each key has one place: changing and removing a deadline takes logarithmic time and leaves nothing behind.
 */
export class Deadlines<K> {
  readonly #options: DeadlinesOptions<K>
  readonly #heap: Entry<K>[] = []
  readonly #entries = new Map<K, Entry<K>>()
  #timer: NodeJS.Timeout | undefined
  /** When the timer fires. */
  #timerAt = Number.POSITIVE_INFINITY
  #running: Promise<void> | undefined
  #stopped = false

  constructor(options: DeadlinesOptions<K>) {
    this.#options = options
  }

  get size(): number {
    return this.#heap.length
  }

  get(key: K): number | undefined {
    return this.#entries.get(key)?.time
  }

  /** Whether the deadline of `key` has passed. */
  isDue(key: K): boolean {
    const time = this.get(key)
    return time !== undefined && time <= Date.now()
  }

  /** @param time milliseconds since 1970; in place of an earlier deadline of `key` */
  set(key: K, time: number): void {
    const known = this.#entries.get(key)
    if (known?.time === time) return
    const entry: Entry<K> = { key, time, position: known?.position ?? this.#heap.length }
    this.#entries.set(key, entry)
    this.#place(entry, entry.position)
    this.#settle(entry)
    this.#arm()
  }

  delete(key: K): void {
    const entry = this.#entries.get(key)
    if (!entry) return
    this.#entries.delete(key)
    const last = this.#heap.pop()
    if (!last || last === entry) return
    this.#place(last, entry.position)
    this.#settle(last)
  }

  /** Calls `onDue` for all deadlines that have passed; resolves when that is done. Called by the timer, too. */
  run(): Promise<void> {
    this.#running ??= this.#work().finally(() => {
      this.#running = undefined
      this.#arm()
    })
    return this.#running
  }

  /** Calls `onDue` no more; resolves when the last call has returned. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#running
  }

  async #work(): Promise<void> {
    const { onDue, onError, slicer, cause } = this.#options
    for (;;) {
      const [first] = this.#heap
      if (this.#stopped || !first || first.time > Date.now()) return
      if (slicer.isOver) {
        await slicer.next(cause)
        continue
      }
      this.delete(first.key)
      try {
        await onDue(first.key)
      } catch (error) {
        onError(error)
      }
    }
  }

  #arm(): void {
    const [first] = this.#heap
    if (this.#stopped || this.#running || !first) return
    const now = Date.now()
    const delay = Math.min(Math.max(minDelay, first.time - now), maxDelay)
    if (now + delay >= this.#timerAt) return
    clearTimeout(this.#timer)
    this.#timerAt = now + delay
    this.#timer = setTimeout(() => {
      this.#timerAt = Number.POSITIVE_INFINITY
      void this.run()
    }, delay).unref()
  }

  #place(entry: Entry<K>, position: number): void {
    entry.position = position
    this.#heap[position] = entry
  }

  /** Moves an entry up or down to its place. */
  #settle(entry: Entry<K>): void {
    this.#rise(entry)
    this.#sink(entry)
  }

  #rise(entry: Entry<K>): void {
    while (entry.position > 0) {
      const { position } = entry
      const parent = this.#heap[(position - 1) >> 1]
      if (!parent || parent.time <= entry.time) return
      const above = parent.position
      this.#place(parent, position)
      this.#place(entry, above)
    }
  }

  #sink(entry: Entry<K>): void {
    for (;;) {
      const { position } = entry
      const left = this.#heap[2 * position + 1]
      const right = this.#heap[2 * position + 2]
      const child = left && right && right.time < left.time ? right : left
      if (!child || child.time >= entry.time) return
      const below = child.position
      this.#place(child, position)
      this.#place(entry, below)
    }
  }
}
