import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'
import type { Logger } from '../base/log.js'
import type { Publisher } from '../sources/publisher.js'
import { isWithinBounds, type TopicBounds } from '../topics/topic-syntax.js'
import type { ListenerTransport } from './presence.js'

/** Somebody has come to a filter, or left it. */
export interface PresenceChange {
  readonly event: 'join' | 'leave'
  readonly device: string
  readonly user: string | undefined
  readonly transport: ListenerTransport
  readonly filter: string
  /** In milliseconds since 1970. */
  readonly time: number
  /** How many listen with this filter now. */
  readonly count: number
  /** The quota key of whoever came or left. */
  readonly account?: string
}

/** What is told of them. Plain numbers, summed up by whoever reads the metrics. */
export interface PresenceCounters {
  published: number
  /** Not told, because the broker was away, too many waited, or they came too fast. */
  dropped: number
  /** Not told, because the topic would have been too large. */
  skipped: number
}

export interface PresenceMessagesOptions {
  readonly publisher: Publisher
  /** How large a topic the broker takes: a larger one could end the session that all publish with. */
  readonly bounds: TopicBounds
  readonly log: Logger
  /**
   * Whether one more of an account may be told now: who comes and goes without end would otherwise have everybody's events evicted from the
   * journal. Left out for any number.
   */
  readonly mayPublish?: ((account: string) => boolean) | undefined
  /**
   * Changes that wait to be published; beyond, they are dropped. Default: 100,000, some 12 MB: when ten thousand who listen
   * with ten filters each are cut off, all are told.
   */
  readonly maxQueued?: number
}

/**
 * So many may be on their way to the broker, its subscribers and the journal: some 5 ms of work, which is done in the same turns of the event
 * loop as everybody's messages.
 */
const maxPublishing = 32

/** Bytes of changes that wait: beyond, they are dropped. They are shared by accounts, as `FairQuota` does. */
const maxQueuedBytes = 16 * 1024 ** 2

/** Bytes that one takes besides its filter. */
const overhead = 200

const prefix = 'presence/'

/** The topic on which it is told who comes to a filter: `presence/` and the filter, with `%`, `+` and `#` as in a URL. */
export function presenceTopic(filter: string): string {
  return prefix + filter.replaceAll('%', '%25').replaceAll('+', '%2B').replaceAll('#', '%23')
}

/** Tells who comes and goes, as MQTT messages of QoS 0: in order, and what cannot be told now is not told later. */
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

  /** Tells nothing of those who listen to `presence/…` itself, and to topics that begin with `$`. */
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
      // What is done is let go of now and then, and not each time, which would be quadratic.
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
      log[level]({ err: error, topic }, 'who came or left could not be published')
    } finally {
      this.#publishing--
      if (this.#next < this.#queue.length) this.#schedule()
    }
  }

  #isTooLarge(topic: string): boolean {
    return !isWithinBounds(topic, this.#options.bounds)
  }

  /** Tells nothing any more; what waits is dropped. */
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
