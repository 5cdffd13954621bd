import type Persistence from 'aedes-persistence/asyncPersistence.js'
import { RetainedMemory, type RetainedStorage } from './retained-storage.js'
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
  /** Not asked for subscriptions and retained messages. */
  readonly persistence: Persistence
  readonly subscriptions: StoredSubscriptions
  readonly retained: RetainedStorage
  /** What was there when it was opened. */
  readonly sessions: readonly StoredSession[]
  /** Notes whose the session is, and when its client was connected. */
  keepSession(id: string, session: Pick<StoredSession, 'owner' | 'seen'>): Promise<void>
  forgetSession(id: string): Promise<void>
}

/** The base of a broker that keeps nothing beyond its own end. */
export function memoryBase(persistence: Persistence): Base {
  return {
    persistence,
    subscriptions: new MemorySubscriptions(),
    retained: new RetainedMemory(),
    sessions: [],
    keepSession: async () => {},
    forgetSession: async () => {},
  }
}
