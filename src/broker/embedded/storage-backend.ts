import type { Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import { RetainedMemory, type RetainedStorage } from './retained-storage.js'
import { MemoryQueues, type SessionQueues } from './session-queues.js'
import { MemorySubscriptions, type StoredSubscriptions } from './stored-subscriptions.js'

/** A session of an earlier run. */
export interface StoredSession {
  readonly id: string
  /** The user that it belongs to, where that was asked for. */
  readonly owner: string | undefined
  /** The network address from which it was made, of a client without a name. */
  readonly network: string | undefined
  /** When its client was last known to be connected, in milliseconds since 1970. */
  readonly seen: number
  /** How many messages wait in its queue. */
  readonly queued: number
  /** Bytes that they take. */
  readonly bytes: number
}

/** A place where sessions and retained messages are kept: in memory or on disk. */
export interface StorageBackend {
  /** Not asked for subscriptions, queues and retained messages. */
  readonly persistence: Persistence
  readonly subscriptions: StoredSubscriptions
  readonly queues: SessionQueues
  readonly retained: RetainedStorage
  /** What was there when it was opened. */
  readonly sessions: readonly StoredSession[]
  /** Stores the user of a session, and when its client was connected. */
  keepSession(id: string, session: Pick<StoredSession, 'owner' | 'network' | 'seen'>): Promise<void>
  /** The subscriptions that were there when it was opened, a session after the other. */
  allSubscriptions(): AsyncIterable<readonly [id: string, subscriptions: readonly Subscription[]]>
  /** Removes many sessions, which nobody uses yet. */
  removeSessions(ids: ReadonlySet<string>): Promise<void>
  /** Removes a session, with all that is in it. */
  removeSession(id: string): Promise<void>
}

/** The base of a broker that keeps nothing beyond its own end. */
export function memoryBackend(persistence: Persistence): StorageBackend {
  const subscriptions = new MemorySubscriptions()
  const queues = new MemoryQueues()
  return {
    persistence,
    subscriptions,
    queues,
    retained: new RetainedMemory(),
    sessions: [],
    keepSession: async () => {},
    allSubscriptions: async function* () {},
    removeSessions: async () => {},
    removeSession: async id => {
      await Promise.all([subscriptions.clear({ id }), persistence.cleanIncoming({ id }), queues.remove(id)])
    },
  }
}
