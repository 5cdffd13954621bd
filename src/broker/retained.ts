import type { AedesPublishPacket } from 'aedes'
import type { Logger } from '../log.js'
import { FilterIndex } from '../topics/filter-index.js'
import type { Base } from './base.js'

/** How often the log says that there are too many, at most; in milliseconds. */
const warningInterval = 60_000

/** What retained messages need. */
export interface RetainedOptions {
  readonly base: Base
  /** How many topics may have one; what is published to a further topic is delivered and not retained. */
  readonly max: number
  readonly log: Logger
}

/** The retained messages: `$SYS` in memory, the others in the base, and no more than a number of them. */
export class Retained {
  readonly #options: RetainedOptions
  readonly #topics: Set<string>
  readonly #system = new Map<string, AedesPublishPacket>()
  #warned = Number.NEGATIVE_INFINITY

  constructor(options: RetainedOptions) {
    this.#options = options
    this.#topics = new Set(options.base.retainedTopics)
  }

  /** Stores `packet` as its topic's message; without a payload, removes that [MQTT-3.3.1-10]. */
  async store(packet: AedesPublishPacket): Promise<void> {
    const { topic, payload } = packet
    if (topic.startsWith('$SYS/')) {
      this.#system.set(topic, packet)
      return
    }
    if (payload.length === 0) this.#topics.delete(topic)
    else if (this.#topics.has(topic) || this.#topics.size < this.#options.max) this.#topics.add(topic)
    else {
      this.#warn()
      return
    }
    await this.#options.base.persistence.storeRetained(packet)
  }

  /** The messages that one of `filters` matches, each once. */
  async *read(filters: readonly string[]): AsyncGenerator<AedesPublishPacket> {
    const wanted = new FilterIndex<true>()
    for (const filter of filters) wanted.add(filter, true)
    const matches = (topic: string): boolean => wanted.match(topic).length > 0
    for (const packet of this.#system.values()) if (matches(packet.topic)) yield packet
    const others = filters.filter(filter => !filter.startsWith('$SYS/'))
    if (others.length === 0) return
    for await (const packet of this.#options.base.readRetained(others)) if (matches(packet.topic)) yield packet
  }

  #warn(): void {
    const now = Date.now()
    if (now - this.#warned < warningInterval) return
    this.#warned = now
    const { max, log } = this.#options
    log.warn(`there are ${max} retained messages (mqtt.maxRetainedMessages); those of further topics are not stored`)
  }
}
