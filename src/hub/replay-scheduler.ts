import type { SliceMonitor } from '../base/slice-monitor.js'

/** Reads of the journal at the same time. */
const maxReads = 4

/** Tests of an event against a filter in one tick of the event loop, some 3 ms; and the additional count for each subscriber. */
export const [testsPerTick, testsPerSubscriber] = [8192, 16]

export interface Replaying {
  /**
   * Replays one batch from memory.
   *
   * @returns the number of tests that it took; `undefined` if the journal has to be read
   */
  replayFromCache(): number | undefined
  /** Replays one batch from the journal. It must not reject. */
  replayFromJournal(): Promise<void>
}

/**
 * Replays retained messages and missed events to subscribers in batches, in turn: no subscriber waits for a million events of another, and live events are sent
 * in between.
 */
export class ReplayScheduler {
  readonly #slices: SliceMonitor | undefined
  readonly #ready = new Set<Replaying>()
  /** Subscribers that need a read of the journal. */
  readonly #waiting = new Set<Replaying>()
  #reads = 0
  #scheduled = false

  constructor(slices?: SliceMonitor) {
    this.#slices = slices
  }

  /** Schedules the next batch of a subscriber. */
  add(subscriber: Replaying): void {
    this.#ready.add(subscriber)
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#run)
  }

  delete(subscriber: Replaying): void {
    this.#ready.delete(subscriber)
    this.#waiting.delete(subscriber)
  }

  readonly #run = (): void => {
    this.#slices?.begin('replay')
    this.#scheduled = false
    let left = testsPerTick
    for (const subscriber of this.#ready) {
      if (left <= 0) {
        this.add(subscriber)
        break
      }
      this.#ready.delete(subscriber)
      const tests = subscriber.replayFromCache()
      left -= testsPerSubscriber + (tests ?? 0)
      if (tests === undefined) this.#waiting.add(subscriber)
    }
    this.#read()
  }

  #read(): void {
    for (const subscriber of this.#waiting) {
      if (this.#reads === maxReads) return
      this.#waiting.delete(subscriber)
      this.#reads++
      void subscriber.replayFromJournal().finally(() => {
        this.#reads--
        this.#read()
      })
    }
  }
}
