import type { AedesPublishPacket } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import { MemorySubscriptions, type StoredSubscriptions } from './stored-subscriptions.js'

/** A session of an earlier run. */
export interface StoredSession {
  readonly id: string
  /** Whose it is, where that was asked for. */
  readonly owner: string | undefined
  /** When its client was last known to be connected, in milliseconds since 1970. */
  readonly seen: number
  /** How many messages wait in its queue. */
  readonly queued: number
}

/** A place where sessions and retained messages are kept: in memory or on disk. */
export interface Base {
  /** Not asked for subscriptions. */
  readonly persistence: Persistence
  readonly subscriptions: StoredSubscriptions
  /** What was there when it was opened. */
  readonly sessions: readonly StoredSession[]
  readonly retainedTopics: readonly string[]
  /** Notes whose the session is, and when its client was connected. */
  keepSession(id: string, session: Pick<StoredSession, 'owner' | 'seen'>): Promise<void>
  forgetSession(id: string): Promise<void>
  /** At least the retained messages that one of `filters` matches, each once. */
  readRetained(filters: readonly string[]): AsyncIterable<AedesPublishPacket>
}

/** The base of a broker that keeps nothing beyond its own end. */
export function memoryBase(persistence: Persistence): Base {
  return {
    persistence,
    subscriptions: new MemorySubscriptions(),
    sessions: [],
    retainedTopics: [],
    keepSession: async () => {},
    forgetSession: async () => {},
    readRetained: () => persistence.createRetainedStream('#'),
  }
}
