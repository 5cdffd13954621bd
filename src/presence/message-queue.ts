import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'
import type { Logger } from '../base/log.js'
import type { Publisher } from '../sources/publisher.js'
import { isWithinBounds, type TopicBounds } from '../topics/topic-syntax.js'

/** Plain counters; the metrics read them. */
export interface MessageCounters {
  published: number
  /** Not published: the broker was unavailable, the queue full, or the rate exceeded. */
  dropped: number
  /** Not published: the topic would have been too large. */
  skipped: number
}

/** How a change becomes a message. */
export interface ChangeEncoding<Change> {
  topicOf(change: Change): string
  payloadOf(change: Change): Buffer
  /** Quota key of the client that causes it. */
  accountOf(change: Change): string
  /** Approximate bytes of a queued change. */
  sizeOf(change: Change): number
}

export interface MessageQueueOptions {
  readonly publisher: Publisher
  /** Bounds of topics at the broker: a larger one could end the session that all publishers share. */
  readonly bounds: TopicBounds
  readonly log: Logger
  /**
   * Rate limit by account: endless changes of one client would evict all other events from the journal. Left out for none.
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

/** Publishes changes as MQTT messages of QoS 0, in order; dropped ones are not published later. */
export class MessageQueue<Change> {
  readonly counters: MessageCounters = { published: 0, dropped: 0, skipped: 0 }
  readonly #encoding: ChangeEncoding<Change>
  readonly #options: MessageQueueOptions
  readonly #maxQueued: number
  readonly #bytes = new FairQuota(maxQueuedBytes)
  #queue: Change[] = []
  #next = 0
  #publishing = 0
  #scheduled: NodeJS.Immediate | undefined
  #closed = false
  #onDrained: (() => void)[] = []

  constructor(encoding: ChangeEncoding<Change>, options: MessageQueueOptions) {
    this.#encoding = encoding
    this.#options = options
    this.#maxQueued = options.maxQueued ?? 100_000
  }

  publish(change: Change): void {
    if (this.#closed) return
    const { publisher, mayPublish } = this.#options
    const account = this.#encoding.accountOf(change)
    const size = this.#encoding.sizeOf(change)
    const isFull =
      this.#queue.length - this.#next >= this.#maxQueued || this.#bytes.exceededBy(account, size) !== undefined
    if (!publisher.connected || isFull || mayPublish?.(account) === false) {
      this.counters.dropped++
      return
    }
    this.#bytes.take(account, size)
    this.#queue.push(change)
    this.#schedule()
  }

  /** Resolves once nothing waits or is being published. */
  async drained(): Promise<void> {
    while (this.#publishing > 0 || this.#next < this.#queue.length) {
      await new Promise<void>(resolve => this.#onDrained.push(resolve))
    }
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
      this.#giveBack(change)
      const topic = this.#encoding.topicOf(change)
      if (!isWithinBounds(topic, this.#options.bounds)) this.counters.skipped++
      else this.#send(topic, change)
    }
    if (this.#next < this.#queue.length) {
      // Trimmed rarely, because trimming each time would be quadratic.
      if (this.#next > this.#maxQueued) this.#setQueue(this.#queue.slice(this.#next))
      this.#schedule()
    } else this.#setQueue([])
  }

  async #send(topic: string, change: Change): Promise<void> {
    const { publisher, log } = this.#options
    this.#publishing++
    try {
      await publisher.publish({ topic, payload: this.#encoding.payloadOf(change), qos: 0, retain: false })
      this.counters.published++
    } catch (error) {
      this.counters.dropped++
      const level = error instanceof GatewayError ? 'debug' : 'error'
      log[level]({ err: error, topic }, 'failed to publish a message about a change')
    } finally {
      this.#publishing--
      if (this.#next < this.#queue.length) this.#schedule()
      this.#tellDrained()
    }
  }

  /** Stops; the queue is dropped. */
  close(): void {
    this.#closed = true
    if (this.#scheduled) clearImmediate(this.#scheduled)
    this.#dropQueue()
  }

  #dropQueue(): void {
    for (const change of this.#queue.slice(this.#next)) this.#giveBack(change)
    this.#setQueue([])
  }

  #giveBack(change: Change): void {
    this.#bytes.giveBack(this.#encoding.accountOf(change), this.#encoding.sizeOf(change))
  }

  #setQueue(waiting: Change[]): void {
    this.#queue = waiting
    this.#next = 0
    this.#tellDrained()
  }

  #tellDrained(): void {
    if (this.#publishing > 0 || this.#next < this.#queue.length) return
    for (const resolve of this.#onDrained.splice(0)) resolve()
  }
}
