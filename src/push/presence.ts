/** How somebody listens. */
export type ListenerTransport = 'sse' | 'poll' | 'socket' | 'mqtt'

/** Somebody who listens. */
export interface Listener {
  readonly device: string
  /** Left out where nobody knows. */
  readonly user?: string | undefined
  readonly transport: ListenerTransport
  readonly topics: readonly string[]
}

/** Somebody's being there. */
export interface Attendance {
  /** It has shown a sign of life. */
  seen(): void
  /** It listens to other filters from now on. */
  change(topics: readonly string[]): void
  /** It is gone; after the grace time, that is known. Idempotent. */
  leave(): void
}

/** Somebody who listens to a topic, as others are told. */
export interface PresentListener extends Listener {
  /** In milliseconds since 1970. */
  readonly since: number
  readonly lastSeen: number
}

/** Who listens, now. */
export interface Presence {
  enter(listener: Listener): Attendance
  /** Those whose filters match a topic name, or who have exactly this filter; `topics` has those filters alone. */
  at(topic: string, limit: number): { readonly count: number; readonly listeners: readonly PresentListener[] }
  /** The names of the devices whose filters match a topic name; at most `limit`. */
  devicesAt(topic: string, limit: number): readonly string[]
  /** How many listen in all, and on each filter; at most `limit` filters, those with the most listeners. */
  counts(limit: number): { readonly count: number; readonly topics: ReadonlyMap<string, number> }
  close(): void
}
