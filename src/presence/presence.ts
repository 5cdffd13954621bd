/** The transport of a listener. */
export type ListenerTransport = 'sse' | 'poll' | 'socket' | 'mqtt'

export const listenerTransports = ['sse', 'poll', 'socket', 'mqtt'] as const satisfies readonly ListenerTransport[]

/**
 * A listener: a device of a user, on one transport. It is present while one of its connections is open, and for the grace time after the last.
 */
export interface Listener {
  readonly device: string
  /** Left out if unknown. */
  readonly user?: string | undefined
  /** The client's IP address, or `unix`; left out for none. */
  readonly address?: string
  readonly transport: ListenerTransport
  /** Valid topic filters (`topicFilterProblem`, `filterDepthProblem`); duplicates count once. */
  readonly topics: readonly string[]
}

/** One connection of a listener. */
export interface PresenceHandle {
  /** Updates the time of its last activity. */
  seen(): void
  /** Adds filters. */
  add(topics: readonly string[]): void
  /** Removes filters, without grace time. */
  remove(topics: readonly string[]): void
  /** Replaces its filters, as `add` and `remove`. */
  change(topics: readonly string[]): void
  /** Closes it; the listener leaves after the grace time. Idempotent; no other method may be called after it. */
  leave(): void
}

/** A listener, as clients see it. */
export interface PresentListener extends Listener {
  /** Its open connections; 0 in the grace time, and between two polls. */
  readonly connections: number
  /** Since when it has been present, in milliseconds since 1970. */
  readonly since: number
  /** Time of its last activity. */
  readonly lastSeen: number
}

/** All present listeners. Counts are of listeners: several connections of one count once. */
export interface Presence {
  enter(listener: Listener): PresenceHandle
  /**
   * Listeners whose filters match a topic name, or that have exactly this filter; `topics` has those filters only.
   *
   * @param limit of the listeners that are listed; `count` is of all
   */
  at(topic: string, limit: number): { readonly count: number; readonly listeners: readonly PresentListener[] }
  /** Device names of listeners whose filters match a topic name; at most `limit`. */
  devicesAt(topic: string, limit: number): readonly string[]
  /** The number of all listeners, and of those of each filter: at most `limit` filters, the largest first. */
  counts(limit: number): { readonly count: number; readonly topics: ReadonlyMap<string, number> }
  close(): void
}
