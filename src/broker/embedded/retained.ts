import type { AedesPublishPacket } from 'aedes'
import { Deadlines } from '../../base/deadlines.js'
import type { Logger } from '../../base/log.js'
import { LogRate } from '../../base/log-rate.js'
import type { RetainedFigures } from '../../base/metrics.js'
import { TimeSlicer } from '../../base/time-slicer.js'
import { TopicTree } from '../../topics/topic-tree.js'
import { isExpired } from './packet.js'
import { type RetainedBounds, RetainedQuota, retainedSize } from './retained-quota.js'
import type { RetainedStorage } from './storage-backend.js'

const batchMessages = 64
/** Maximum bytes of a batch; a larger message is a batch by itself. */
export const batchBytes = 64 * 1024
/** Removals of expired messages that the start does not wait for. */
const maxRemovals = 1000
/** Topics named in the log where the storage has more than fits. */
const loggedTopics = 3

/** A batch of matching topics. */
export interface RetainedBatch {
  readonly topics: readonly string[]
  readonly bytes: number
  readonly isLast: boolean
}

export interface RetainedOptions {
  readonly storage: RetainedStorage
  readonly bounds: RetainedBounds
  readonly log: Logger
  /** Default: one of its own. */
  readonly slicer?: TimeSlicer | undefined
  /** Default: errors are logged. */
  readonly onError?: ((error: unknown) => void) | undefined
}

/**
 * Retained messages: topics, and payloads of `$SYS`, are in memory; other payloads are in the storage. Expired ones are removed when their
 * time is over, and are never returned.
 */
export class Retained {
  readonly #options: RetainedOptions
  readonly #quota: RetainedQuota
  readonly #system = new TopicTree<AedesPublishPacket>()
  /** By publisher. */
  readonly #warnings = new LogRate()
  /** When messages expire, by topic. */
  readonly #expiries: Deadlines<string>
  /** Whether the storage has messages that did not fit at the start. */
  #hasMore = false
  #refused = 0

  constructor(options: RetainedOptions) {
    this.#options = options
    this.#quota = new RetainedQuota(options.bounds)
    const { log, slicer = new TimeSlicer(), onError } = options
    this.#expiries = new Deadlines({
      onDue: topic => this.#expire(topic),
      onError: onError ?? (error => log.error({ err: error }, 'failed to remove an expired retained message')),
      slicer,
      cause: 'retained messages',
    })
  }

  /** Current figures, without `$SYS`. */
  figures(): Omit<RetainedFigures, 'scans'> {
    return { messages: this.#quota.entries.size, bytes: this.#quota.bytes, refused: this.#refused }
  }

  /** Whether payloads are in memory anyway. */
  get isMemory(): boolean {
    return this.#options.storage.isMemory
  }

  /** Loads the storage's topics, as many as fit. Call once, first. */
  async load(): Promise<void> {
    const { storage, bounds, log } = this.#options
    const leftOut: string[] = []
    let [count, bytes] = [0, 0]
    const removals: (Promise<void> | undefined)[] = []
    for await (const packet of storage.load()) {
      const size = retainedSize(packet)
      if (isExpired(packet)) {
        removals.push(storage.remove(packet.topic))
        if (removals.length >= maxRemovals) await Promise.all(removals.splice(0))
        continue
      }
      if (this.#quota.load(packet.topic, size)) {
        this.#noteExpiry(packet)
        continue
      }
      count++
      bytes += size
      if (count <= loggedTopics) leftOut.push(packet.topic)
      // Bounds the start where there is a hundred times as much.
      if (bytes > bounds.maxRetainedBytes) break
    }
    await Promise.all(removals)
    if (count === 0) return
    this.#hasMore = true
    log.warn(
      { topics: leftOut, count, complete: bytes <= bounds.maxRetainedBytes },
      `the data directory has more retained messages than ${describe(bounds)}: the rest is not loaded and stays on disk`,
    )
  }

  /**
   * Stores `packet` as its topic's message; without a payload, removes the message [MQTT-3.3.1-10]. Where it does not fit, the earlier one is
   * removed, because no message is better than an outdated one. `read` returns the change at once.
   *
   * @param publisher quota key
   * @returns `isKept`: false if it does not fit and the topic had no message before; `written`: resolves when it is on disk
   */
  store(packet: AedesPublishPacket, publisher: string): { isKept: boolean; written?: Promise<void> | undefined } {
    const { storage } = this.#options
    const { topic, payload } = packet
    if (topic.startsWith('$SYS/')) {
      this.#system.set(topic, packet)
      return { isKept: true }
    }
    if (payload.length > 0 && !isExpired(packet)) {
      const isNew = this.#quota.entries.get(topic) === undefined
      if (this.#quota.replace(topic, retainedSize(packet), publisher)) {
        this.#noteExpiry(packet)
        return { isKept: true, written: storage.put(packet) }
      }
      this.#expiries.delete(topic)
      this.#warn(publisher)
      if (isNew && !this.#hasMore) return { isKept: false }
      return { isKept: !isNew, written: storage.remove(topic) }
    }
    this.#expiries.delete(topic)
    if (this.#quota.remove(topic) || this.#hasMore) return { isKept: true, written: storage.remove(topic) }
    return { isKept: true }
  }

  /** Stops removing expired messages. Call before the storage is closed. */
  close(): Promise<void> {
    return this.#expiries.stop()
  }

  #noteExpiry({ topic, messageExpiry }: AedesPublishPacket & { readonly messageExpiry?: number }): void {
    if (messageExpiry === undefined) this.#expiries.delete(topic)
    else this.#expiries.set(topic, messageExpiry)
  }

  async #expire(topic: string): Promise<void> {
    this.#expiries.delete(topic)
    if (this.#quota.remove(topic)) await this.#options.storage.remove(topic)
  }

  /**
   * Scans for the messages that match one of `filters`, each once, in batches.
   *
   * @param isOver called after each step; where it returns true, the batch ends early and may be empty
   */
  *scan(filters: readonly string[], isOver: () => boolean): Generator<RetainedBatch, undefined, void> {
    let [topics, bytes]: [string[], number] = [[], 0]
    for (const topic of this.#match(filters)) {
      const size = topic === undefined ? undefined : this.#sizeOf(topic)
      if (topic !== undefined && size !== undefined) {
        if (topics.length > 0 && bytes + size > batchBytes) {
          yield { topics, bytes, isLast: false }
          ;[topics, bytes] = [[], 0]
        }
        topics.push(topic)
        bytes += size
      }
      if (topics.length < batchMessages && !isOver()) continue
      yield { topics, bytes, isLast: false }
      ;[topics, bytes] = [[], 0]
    }
    yield { topics, bytes, isLast: true }
  }

  #sizeOf(topic: string): number | undefined {
    const system = this.#system.get(topic)
    if (system) return retainedSize(system)
    // It is removed by its deadline, in a moment.
    return this.#expiries.isDue(topic) ? undefined : this.#quota.entries.get(topic)?.size
  }

  *#match(filters: readonly string[]): Generator<string | undefined> {
    const system = filters.filter(isSystem)
    if (system.length > 0) yield* this.#system.match(system)
    // Preparing to match a thousand filters takes milliseconds.
    if (this.#quota.entries.size === 0) return
    if (system.length < filters.length) yield* this.#quota.entries.match(filters.filter(filter => !isSystem(filter)))
  }

  /** The messages of `topics` that still exist and are not expired. */
  async read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]> {
    const system = topics.map(topic => this.#system.get(topic)).filter(packet => packet !== undefined)
    if (system.length === topics.length) return system
    const stored = await this.#options.storage.read(topics.filter(topic => !isSystem(topic)))
    return [...system, ...stored.filter(packet => !isExpired(packet))]
  }

  #warn(publisher: string): void {
    const { log, bounds } = this.#options
    this.#refused++
    if (!this.#warnings.allows(publisher)) return
    log.warn(
      { publisher },
      `a retained message is delivered but not stored: one publisher may have half of ${describe(bounds)}, or what others leave`,
    )
  }
}

function isSystem(topic: string): boolean {
  return topic.startsWith('$SYS/')
}

function describe({ maxRetainedMessages, maxRetainedBytes }: RetainedBounds): string {
  return `${maxRetainedMessages} messages (embedded.maxRetainedMessages) and ${maxRetainedBytes} bytes (embedded.maxRetainedBytes)`
}
