/** An open feed. */
export interface Feed {
  readonly channel: string
  readonly device: string
  /** When it was opened, in milliseconds since 1970. */
  readonly at: number
  /** The client's last event id as sent; empty for none. */
  readonly lastEventId: string
}

/** The open feeds by channel. */
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

  /** The number of feeds of each channel. */
  *counts(): Generator<readonly [channel: string, feeds: number]> {
    for (const [channel, { size }] of this.#channels) yield [channel, size]
  }

  on(channel: string): Iterable<Feed> {
    return this.#channels.get(channel) ?? []
  }
}
