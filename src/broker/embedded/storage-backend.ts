import type { AedesPublishPacket, Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import type { IdentifierSet } from './identifier-set.js'
import { MemoryQueues, type SessionQueues } from './session-queues.js'

/** A session of an earlier run. */
export interface StoredSession {
  readonly id: string
  /** The user it belongs to; `undefined` without access control. */
  readonly owner: string | undefined
  /** The network it was created from, for an anonymous client. */
  readonly network: string | undefined
  /** When its client was last known to be connected, in milliseconds since 1970. */
  readonly seen: number
  /** Queued messages. */
  readonly queued: number
  /** Bytes of the queued messages. */
  readonly bytes: number
}

/** Storage of sessions and retained messages, in memory or on disk. */
export interface StorageBackend {
  /** Stores wills and packet identifiers; subscriptions, queues and retained messages have their own storage. */
  readonly persistence: Persistence
  readonly subscriptions: StoredSubscriptions
  readonly queues: SessionQueues
  readonly retained: RetainedStorage
  /** By client id: the packet identifiers of QoS 2 found at the start, which wait for PUBREL. */
  readonly incoming: ReadonlyMap<string, IdentifierSet>
  /** The sessions found at the start. */
  readonly sessions: readonly StoredSession[]
  /** Stores a session's owner, and when its client was connected. */
  keepSession(id: string, session: Pick<StoredSession, 'owner' | 'network' | 'seen'>): Promise<void>
  /** The subscriptions found at the start, by session. */
  allSubscriptions(): AsyncIterable<readonly [id: string, subscriptions: readonly Subscription[]]>
  /** Removes many sessions, at the start. */
  removeSessions(ids: ReadonlySet<string>): Promise<void>
  /** Removes a session with its subscriptions and queue. */
  removeSession(id: string): Promise<void>
}

interface Session {
  readonly id: string
}

/**
 * Stored subscriptions of sessions. Aedes' persistences also keep a trie of them, with 10 KiB and more for a filter of 32 levels; here
 * `QueueIndex` finds them.
 */
export interface StoredSubscriptions {
  /** Stores subscriptions of a session, each in place of an earlier one with the same filter. */
  add(session: Session, subscriptions: readonly Subscription[]): Promise<void>
  remove(session: Session, filters: readonly string[]): Promise<void>
  /** Removes all of a session. */
  clear(session: Session): Promise<void>
  /** All of a session. */
  read(session: Session): Promise<Subscription[]>
}

/** Retained messages by topic, in memory or on disk, without bounds. */
export interface RetainedStorage {
  /** Whether payloads are in memory anyway. */
  readonly isMemory: boolean
  /** All messages. */
  load(): AsyncIterable<AedesPublishPacket>
  /** `read` returns it at once; resolves when it is on disk, and is `undefined` without a disk. */
  put(packet: AedesPublishPacket): Promise<void> | undefined
  remove(topic: string): Promise<void> | undefined
  /** The messages of `topics` that exist, in their order. */
  read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]>
}

/** Storage in memory, which ends with the process. */
export function memoryBackend(persistence: Persistence): StorageBackend {
  const subscriptions = new MemorySubscriptions()
  const queues = new MemoryQueues()
  return {
    persistence,
    subscriptions,
    queues,
    retained: new RetainedMemory(),
    incoming: new Map(),
    sessions: [],
    keepSession: async () => {},
    allSubscriptions: async function* () {},
    removeSessions: async () => {},
    removeSession: async id => {
      await Promise.all([subscriptions.clear({ id }), persistence.cleanIncoming({ id }), queues.remove(id)])
    },
  }
}

export class MemorySubscriptions implements StoredSubscriptions {
  readonly #sessions = new Map<string, Map<string, Subscription>>()

  async add({ id }: Session, subscriptions: readonly Subscription[]): Promise<void> {
    const stored = this.#sessions.get(id) ?? new Map<string, Subscription>()
    for (const subscription of subscriptions) stored.set(subscription.topic, { ...subscription })
    if (stored.size > 0) this.#sessions.set(id, stored)
  }

  async remove({ id }: Session, filters: readonly string[]): Promise<void> {
    const stored = this.#sessions.get(id)
    for (const filter of filters) stored?.delete(filter)
    if (stored?.size === 0) this.#sessions.delete(id)
  }

  async clear({ id }: Session): Promise<void> {
    this.#sessions.delete(id)
  }

  async read({ id }: Session): Promise<Subscription[]> {
    return [...(this.#sessions.get(id)?.values() ?? [])]
  }
}

export class RetainedMemory implements RetainedStorage {
  readonly isMemory = true
  readonly #packets = new Map<string, AedesPublishPacket>()

  async *load(): AsyncGenerator<AedesPublishPacket> {
    yield* this.#packets.values()
  }

  put(packet: AedesPublishPacket): undefined {
    this.#packets.set(packet.topic, packet)
  }

  remove(topic: string): undefined {
    this.#packets.delete(topic)
  }

  async read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]> {
    return topics.map(topic => this.#packets.get(topic)).filter(packet => packet !== undefined)
  }
}
