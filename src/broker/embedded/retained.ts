import type { AedesPublishPacket } from 'aedes'
import type { Logger } from '../../base/log.js'
import type { RetainedFigures } from '../../base/metrics.js'
import { TopicTree } from '../../topics/topic-tree.js'
import { type RetainedBounds, RetainedQuota, retainedSize } from './retained-quota.js'
import { RetainedScan } from './retained-scan.js'
import type { RetainedStorage } from './storage-backend.js'

/** The log names a publisher whose messages are not stored once in this time, in milliseconds. */
const warningInterval = 60_000
/** Publishers of whom the time of the last warning is known. */
const maxWarned = 1000
/** Topics that the log names where a data directory has more than fits. */
const namedTopics = 3

/** Dependencies of retained messages. */
export interface RetainedOptions {
  readonly storage: RetainedStorage
  readonly bounds: RetainedBounds
  readonly log: Logger
}

/** The retained messages: their topics are in memory; payloads of `$SYS` as well, the others in the storage. */
export class Retained {
  readonly #options: RetainedOptions
  readonly #quota: RetainedQuota
  readonly #system = new TopicTree<AedesPublishPacket>()
  readonly #warned = new Map<string, number>()
  /** Whether the storage has messages that did not fit when it was loaded. */
  #hasMore = false
  #refused = 0

  constructor(options: RetainedOptions) {
    this.#options = options
    this.#quota = new RetainedQuota(options.bounds)
  }

  /** Its figures as they are now, without `$SYS`. */
  figures(): Omit<RetainedFigures, 'scans'> {
    return { messages: this.#quota.entries.size, bytes: this.#quota.bytes, refused: this.#refused }
  }

  /** Whether payloads that are read are in memory anyway. */
  get isMemory(): boolean {
    return this.#options.storage.isMemory
  }

  /** Finds the topics that the storage has, as many as fit. Call once, before anything else. */
  async load(): Promise<void> {
    const { storage, bounds, log } = this.#options
    const leftOut: string[] = []
    let [count, bytes] = [0, 0]
    for await (const packet of storage.load()) {
      const size = retainedSize(packet)
      if (this.#quota.load(packet.topic, size)) continue
      count++
      bytes += size
      if (count <= namedTopics) leftOut.push(packet.topic)
      // The start would take for ever where there is a hundred times as much.
      if (bytes > bounds.maxRetainedBytes) break
    }
    if (count === 0) return
    this.#hasMore = true
    log.warn(
      { topics: leftOut, count, complete: bytes <= bounds.maxRetainedBytes },
      `the data directory has more retained messages than ${describe(bounds)}: these are not loaded, and stay on disk`,
    )
  }

  /**
   * Stores `packet` as its topic's message; without a payload, removes that [MQTT-3.3.1-10]. One that does not fit takes the earlier one
   * away, because no state is better than one that is out of date.
   *
   * `read` returns it from now on.
   *
   * @param publisher quota key
   * @returns `isKept`: false where there is no room for it, and the topic had no message before; `written`: resolves when it is on disk
   */
  store(packet: AedesPublishPacket, publisher: string): { isKept: boolean; written?: Promise<void> | undefined } {
    const { storage } = this.#options
    const { topic, payload } = packet
    if (topic.startsWith('$SYS/')) {
      this.#system.set(topic, packet)
      return { isKept: true }
    }
    if (payload.length > 0) {
      const isNew = this.#quota.entries.get(topic) === undefined
      if (this.#quota.replace(topic, retainedSize(packet), publisher)) {
        return { isKept: true, written: storage.put(packet) }
      }
      this.#warn(publisher)
      if (isNew && !this.#hasMore) return { isKept: false }
      return { isKept: !isNew, written: storage.remove(topic) }
    }
    if (this.#quota.remove(topic) || this.#hasMore) return { isKept: true, written: storage.remove(topic) }
    return { isKept: true }
  }

  /** Begins to look for the messages that one of `filters` matches, each once. */
  scan(filters: readonly string[]): RetainedScan {
    const sizeOf = (topic: string): number | undefined => {
      const system = this.#system.get(topic)
      return system ? retainedSize(system) : this.#quota.entries.get(topic)?.size
    }
    return new RetainedScan(this.#match(filters), sizeOf)
  }

  *#match(filters: readonly string[]): Generator<string | undefined> {
    const system = filters.filter(isSystem)
    if (system.length > 0) yield* this.#system.match(system)
    // To match filters is work before the first topic is found: a thousand of them take milliseconds.
    if (this.#quota.entries.size === 0) return
    if (system.length < filters.length) yield* this.#quota.entries.match(filters.filter(filter => !isSystem(filter)))
  }

  /** The messages of `topics`, without those that have none any more. */
  async read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]> {
    const system = topics.map(topic => this.#system.get(topic)).filter(packet => packet !== undefined)
    if (system.length === topics.length) return system
    return [...system, ...(await this.#options.storage.read(topics.filter(topic => !isSystem(topic))))]
  }

  #warn(publisher: string): void {
    const { log, bounds } = this.#options
    this.#refused++
    const now = Date.now()
    if (now - (this.#warned.get(publisher) ?? Number.NEGATIVE_INFINITY) < warningInterval) return
    if (this.#warned.size >= maxWarned) this.#warned.clear()
    this.#warned.set(publisher, now)
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
  return `${maxRetainedMessages} messages (mqtt.maxRetainedMessages) and ${maxRetainedBytes} bytes (mqtt.maxRetainedBytes)`
}
