import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'
import type { Logger } from '../base/log.js'
import type { Publisher } from '../sources/publisher.js'
import { isWithinBounds, type TopicBounds } from '../topics/topic-syntax.js'
import type { ListenerTransport } from './presence.js'

/** A listener has joined or left a filter. */
export interface PresenceChange {
  readonly event: 'join' | 'leave'
  readonly device: string
  readonly user: string | undefined
  readonly transport: ListenerTransport
  readonly filter: string
  /** In milliseconds since 1970. */
  readonly time: number
  /** Listeners with this filter now. */
  readonly count: number
  /** The quota key of the listener. */
  readonly account?: string
}

/** Plain counters; the metrics read them. */
export interface PresenceCounters {
  published: number
  /** Not published: the broker was unavailable, the queue full, or the rate exceeded. */
  dropped: number
  /** Not published: the topic would have been too large. */
  skipped: number
}

export interface PresenceMessagesOptions {
  readonly publisher: Publisher
  /** Bounds of topics at the broker: a larger one could end the session that all publishers share. */
  readonly bounds: TopicBounds
  readonly log: Logger
  /**
   * Rate limit by account: endless joins and leaves of one client would evict all other events from the journal. Left out for none.
   */
  readonly mayPublish?: ((account: string) => boolean) | undefined
  /**
   * Queued changes; beyond, they are dropped. Default: 100,000, some 12 MB: enough for ten thousand simultaneous disconnects of listeners with ten filters
   * each.
   */
  readonly maxQueued?: number
}

/**
 * Messages that are being published at the same time: some 5 ms of work, in the same ticks as that of all other messages.
 */
const maxPublishing = 32

/** Bytes of queued changes, shared by accounts as in `FairQuota`; beyond, they are dropped. */
const maxQueuedBytes = 16 * 1024 ** 2

/** Bytes of a queued change without its filter. */
const overhead = 200

const prefix = 'presence/'

/** The topic of a filter's joins and leaves: `presence/` and the filter, with `%`, `+` and `#` percent-encoded. */
export function presenceTopic(filter: string): string {
  return prefix + filter.replaceAll('%', '%25').replaceAll('+', '%2B').replaceAll('#', '%23')
}

/** Publishes joins and leaves as MQTT messages of QoS 0, in order; dropped ones are not published later. */
export class PresenceMessages {
  readonly counters: PresenceCounters = { published: 0, dropped: 0, skipped: 0 }
  readonly #options: PresenceMessagesOptions
  readonly #maxQueued: number
  readonly #bytes = new FairQuota(maxQueuedBytes)
  #queue: PresenceChange[] = []
  #next = 0
  #publishing = 0
  #scheduled: NodeJS.Immediate | undefined
  #closed = false

  constructor(options: PresenceMessagesOptions) {
    this.#options = options
    this.#maxQueued = options.maxQueued ?? 100_000
  }

  /** Queues a change; not those of `presence/…` itself, and of filters that begin with `$`. */
  publish(change: PresenceChange): void {
    const { filter, account = '' } = change
    if (this.#closed || filter.startsWith(prefix) || filter.startsWith('$')) return
    const { publisher, mayPublish } = this.#options
    const isFull =
      this.#queue.length - this.#next >= this.#maxQueued ||
      this.#bytes.exceededBy(account, sizeOf(change)) !== undefined
    if (!publisher.connected || isFull || mayPublish?.(account) === false) {
      this.counters.dropped++
      return
    }
    this.#bytes.take(account, sizeOf(change))
    this.#queue.push(change)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled === undefined && !this.#closed && this.#publishing < maxPublishing) {
      this.#scheduled = setImmediate(this.#publishSome)
    }
  }

  readonly #publishSome = (): void => {
    this.#scheduled = undefined
    if (!this.#options.publisher.connected) {
      this.counters.dropped += this.#queue.length - this.#next
      this.#dropQueue()
      return
    }
    while (this.#publishing < maxPublishing) {
      const change = this.#queue[this.#next]
      if (change === undefined) break
      this.#next++
      this.#bytes.giveBack(change.account ?? '', sizeOf(change))
      const topic = presenceTopic(change.filter)
      if (this.#isTooLarge(topic)) this.counters.skipped++
      else this.#send(topic, change)
    }
    if (this.#next < this.#queue.length) {
      // Trimmed rarely, because trimming each time would be quadratic.
      if (this.#next > this.#maxQueued) this.#setQueue(this.#queue.slice(this.#next))
      this.#schedule()
    } else this.#setQueue([])
  }

  async #send(topic: string, change: PresenceChange): Promise<void> {
    const { publisher, log } = this.#options
    this.#publishing++
    try {
      await publisher.publish({ topic, payload: encode(change), qos: 0, retain: false })
      this.counters.published++
    } catch (error) {
      this.counters.dropped++
      const level = error instanceof GatewayError ? 'debug' : 'error'
      log[level]({ err: error, topic }, 'failed to publish presence event')
    } finally {
      this.#publishing--
      if (this.#next < this.#queue.length) this.#schedule()
    }
  }

  #isTooLarge(topic: string): boolean {
    return !isWithinBounds(topic, this.#options.bounds)
  }

  /** Stops; the queue is dropped. */
  close(): void {
    this.#closed = true
    if (this.#scheduled) clearImmediate(this.#scheduled)
    this.#dropQueue()
  }

  #dropQueue(): void {
    for (const change of this.#queue.slice(this.#next)) this.#bytes.giveBack(change.account ?? '', sizeOf(change))
    this.#setQueue([])
  }

  #setQueue(waiting: PresenceChange[]): void {
    this.#queue = waiting
    this.#next = 0
  }
}

function sizeOf({ filter }: PresenceChange): number {
  return overhead + filter.length
}

function encode({ event, device, user, transport, filter, time, count }: PresenceChange): Buffer {
  const at = new Date(time).toISOString()
  return Buffer.from(JSON.stringify({ event, device, user, transport, topic: filter, time: at, count }))
}
