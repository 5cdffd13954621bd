/** A feed that is open. */
export interface Feed {
  readonly channel: string
  readonly device: string
  /** When it was asked for, in milliseconds since 1970. */
  readonly at: number
  /** What its client had last, in its own words; empty for nothing. */
  readonly lastEventId: string
}

/** The feeds that are open, by channel. */
export class OpenFeeds {
  readonly #channels = new Map<string, Set<Feed>>()

  /** @returns what takes it out again; calling it again does nothing */
  add(feed: Feed): () => void {
    const { channel } = feed
    const feeds = this.#channels.get(channel) ?? new Set()
    this.#channels.set(channel, feeds.add(feed))
    return () => {
      if (feeds.delete(feed) && feeds.size === 0) this.#channels.delete(channel)
    }
  }

  /** How many there are on each channel. */
  *counts(): Generator<readonly [channel: string, feeds: number]> {
    for (const [channel, { size }] of this.#channels) yield [channel, size]
  }

  on(channel: string): Iterable<Feed> {
    return this.#channels.get(channel) ?? []
  }
}
