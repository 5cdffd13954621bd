/** How somebody listens. */
export type ListenerTransport = 'sse' | 'poll' | 'socket' | 'mqtt'

export const listenerTransports = ['sse', 'poll', 'socket', 'mqtt'] as const satisfies readonly ListenerTransport[]

/**
 * Somebody who listens: a device of a user, on one kind of transport. All its connections are one listener, which is there
 * while any of them is, and for the grace time after the last.
 */
export interface Listener {
  readonly device: string
  /** Left out where nobody knows. */
  readonly user?: string | undefined
  /** The client's IP address, or `unix`; left out where it does not matter. */
  readonly address?: string
  readonly transport: ListenerTransport
  /** Valid topic filters (`topicFilterProblem`, `filterDepthProblem`); one that is there twice counts once. */
  readonly topics: readonly string[]
}

/** A listener's being there, with one connection. */
export interface PresenceHandle {
  /** It has shown a sign of life. */
  seen(): void
  /** It also listens to these from now on. */
  add(topics: readonly string[]): void
  /** It listens to these no longer, and everybody may know at once. */
  remove(topics: readonly string[]): void
  /** It listens to these, and no others, from now on: as `add` and `remove`. */
  change(topics: readonly string[]): void
  /** It is gone; after the grace time, everybody knows. Idempotent; nothing else may be called after it. */
  leave(): void
}

/** Somebody who listens to a topic, as others are told. */
export interface PresentListener extends Listener {
  /** Its open connections; 0 in the grace time, and between two polls. */
  readonly connections: number
  /** Since when it has been there, in milliseconds since 1970. */
  readonly since: number
  /** Its last sign of life. */
  readonly lastSeen: number
}

/** Who listens, now. All counts are of listeners: several connections of one count once. */
export interface Presence {
  enter(listener: Listener): PresenceHandle
  /**
   * Those whose filters match a topic name, or who have exactly this filter; `topics` has those filters alone.
   *
   * @param limit how many are listed; `count` is of all
   */
  at(topic: string, limit: number): { readonly count: number; readonly listeners: readonly PresentListener[] }
  /** The names of the devices whose filters match a topic name; at most `limit`. */
  devicesAt(topic: string, limit: number): readonly string[]
  /** How many listen in all, and on each filter; at most `limit` filters, those with the most listeners. */
  counts(limit: number): { readonly count: number; readonly topics: ReadonlyMap<string, number> }
  close(): void
}
