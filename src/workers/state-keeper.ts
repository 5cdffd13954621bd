import { MemoryState } from '../storage/memory-state.js'
import {
  type StateBounds,
  type StateCollection,
  StateFullError,
  type Usage,
  type UsageReport,
} from '../storage/shared-state.js'
import type { Channel } from './channel.js'

/** Milliseconds for which reports are kept, and entries of all of them. */
const [maxAge, maxUsage] = [10_000, 100_000]

interface Report {
  readonly from: Channel
  readonly usage: readonly Usage[]
  readonly time: number
}

/** The state of all workers, in the memory of the primary process. */
export class StateKeeper {
  readonly #now: () => number
  readonly #state: MemoryState
  readonly #collections = new Map<string, StateCollection>()
  /** Oldest first. */
  #reports: Report[] = []
  #usage = 0
  /** Number of reports that were ever made, and of those that each worker has. */
  #made = 0
  readonly #read = new WeakMap<Channel, number>()

  /** @param now monotonic milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
    this.#state = new MemoryState(now)
  }

  /** Answers a worker. */
  add(channel: Channel): void {
    channel.onQuestion('getEntry', ({ name, bounds, key }) => this.#collectionOf(name, bounds).get(key))
    channel.onQuestion('setEntry', async ({ name, bounds, key, version, change }) => {
      try {
        return await this.#collectionOf(name, bounds).set(key, version, change)
      } catch (error) {
        if (error instanceof StateFullError) return 'full'
        throw error
      }
    })
    channel.onQuestion('exchangeUsage', usage => this.#exchange(channel, usage))
  }

  #collectionOf(name: string, bounds: StateBounds): StateCollection {
    const collection = this.#collections.get(name) ?? this.#state.collection(name, bounds)
    this.#collections.set(name, collection)
    return collection
  }

  #exchange(from: Channel, usage: readonly Usage[]): readonly UsageReport[] {
    const now = this.#now()
    if (usage.length > 0) {
      this.#reports.push({ from, usage, time: now })
      this.#usage += usage.length
      this.#made += 1
    }
    this.#expire(now)
    const unread = this.#made - (this.#read.get(from) ?? 0)
    this.#read.set(from, this.#made)
    const reports = unread === 0 ? [] : this.#reports.slice(-unread)
    return reports
      .filter(report => report.from !== from)
      .map(report => ({ age: now - report.time, usage: report.usage }))
  }

  #expire(now: number): void {
    let expired = 0
    for (const { usage, time } of this.#reports) {
      if (now - time <= maxAge && this.#usage <= maxUsage) break
      this.#usage -= usage.length
      expired += 1
    }
    if (expired > 0) this.#reports = this.#reports.slice(expired)
  }
}
