import type { RateLimits } from '../../access/rate-limits.js'
import type { StreamContext } from '../../transports/sse/event-stream.js'
import type { TransportContext } from '../../transports/transport-context.js'
import type { ChannelReader } from './requests.js'

export interface PereOptions extends TransportContext {
  /** Where its URLs begin: `/pere`, or `/`. */
  readonly prefix: string
  /** Rate of messages by user, or by address for clients without a user name; no limit when left out. */
  readonly publishes?: RateLimits | undefined
  /** Default: new ones. */
  readonly feeds?: OpenFeeds | undefined
  readonly publishers?: Publishers | undefined
  /** Milliseconds since 1970. */
  readonly now?: () => number
}

/** Parts that PERE's routes share. */
export interface PereContext extends StreamContext {
  readonly feeds: OpenFeeds
  readonly publishers: Publishers
  readonly publishes: RateLimits | undefined
  readonly channelOf: ChannelReader
  readonly now: () => number
}

export interface Feed {
  readonly channel: string
  readonly device: string
  /** When it was opened, in milliseconds since 1970. */
  readonly at: number
  /** The client's last event id as sent; empty for none. */
  readonly lastEventId: string
}

export class OpenFeeds {
  readonly #channels = new Map<string, Set<Feed>>()

  /** @returns removes it again; idempotent */
  add(feed: Feed): () => void {
    const { channel } = feed
    const feeds = this.#channels.get(channel) ?? new Set()
    this.#channels.set(channel, feeds.add(feed))
    return () => {
      if (feeds.delete(feed) && feeds.size === 0) this.#channels.delete(channel)
    }
  }

  *counts(): Generator<readonly [channel: string, feeds: number]> {
    for (const [channel, { size }] of this.#channels) yield [channel, size]
  }

  on(channel: string): Iterable<Feed> {
    return this.#channels.get(channel) ?? []
  }
}

/** Events whose publisher is known. */
const maxKnown = 10_000

/** The publishers of the newest events, by event id: PERE shows them, and MQTT does not carry them. In memory only. */
export class Publishers {
  readonly #devices = new Map<string, string>()

  note(id: string, device: string): void {
    this.#devices.set(id, device)
    if (this.#devices.size <= maxKnown) return
    const [oldest] = this.#devices.keys()
    if (oldest !== undefined) this.#devices.delete(oldest)
  }

  of(id: string): string | undefined {
    return this.#devices.get(id)
  }
}
