import type { AedesPublishPacket, PublishPacket, Subscription } from 'aedes'
import type { PacketIds } from './packet-ids.js'
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
  /** Whether its client was connected when that was stored. */
  readonly wasConnected?: boolean
  /** Its session expiry interval in seconds; left out before MQTT 5. */
  readonly expiry?: number
  readonly queued: number
  readonly bytes: number
  /** When the first of its unsent messages expires, in milliseconds since 1970; left out if none does. */
  readonly nextExpiry?: number
}

/** The stored record of a session, besides its subscriptions and queue. */
export type SessionRecord = Omit<StoredSession, 'id' | 'queued' | 'bytes' | 'nextExpiry'>

/** A session's subscription: its filter and options. Retain handling is over once it is granted, and is not stored. */
export interface StoredSubscription extends Subscription {
  /** Its subscription identifier (MQTT 5 §3.8.2.1.2), if it has one. */
  readonly subscriptionIdentifiers?: readonly number[]
}

/** A will with its delay and message expiry interval, both in seconds, and its encoded properties. */
export interface Will extends Pick<PublishPacket, 'topic' | 'payload' | 'qos' | 'retain'> {
  readonly properties?: {
    readonly willDelayInterval?: number
    readonly messageExpiryInterval?: number
    readonly encoded?: Buffer | undefined
  }
}

/** A will, with the run of the broker and the client that it is of. */
export interface StoredWill extends Will {
  readonly brokerId: string
  readonly clientId: string
}

/**
 * Storage of sessions, wills and retained messages, in memory or on disk. What `Store` has in memory anyway is stored for the next run alone:
 * subscriptions, wills, and the packet identifiers of QoS 2 that wait for PUBREL.
 */
export interface StorageBackend {
  readonly queues: SessionQueues
  readonly retained: RetainedStorage
  /** By client id: the packet identifiers found at the start. */
  readonly incoming: ReadonlyMap<string, PacketIds>
  readonly sessions: readonly StoredSession[]
  keepSession(id: string, session: SessionRecord): Promise<void>
  /** Removes a session with its subscriptions and queue. */
  removeSession(id: string): Promise<void>
  /** Removes many sessions, at the start. */
  removeSessions(ids: ReadonlySet<string>): Promise<void>
  /** The subscriptions found at the start, by session. */
  allSubscriptions(): AsyncIterable<readonly [id: string, subscriptions: readonly StoredSubscription[]]>
  /** Stores subscriptions of a session, each in place of an earlier one with the same filter. */
  addSubscriptions(id: string, subscriptions: readonly StoredSubscription[]): Promise<void>
  removeSubscriptions(id: string, filters: readonly string[]): Promise<void>
  addIncoming(id: string, messageId: number): Promise<void>
  removeIncoming(id: string, messageId: number): Promise<void>
  /** Removes all packet identifiers of a session. */
  clearIncoming(id: string): Promise<void>
  putWill(will: StoredWill): Promise<void>
  removeWill(clientId: string): Promise<void>
  will(clientId: string): Promise<StoredWill | undefined>
  /** All wills. */
  wills(): AsyncIterable<StoredWill>
}

/** Retained messages by topic, in memory or on disk, without bounds. */
export interface RetainedStorage {
  /** Whether payloads are in memory anyway. */
  readonly isMemory: boolean
  load(): AsyncIterable<AedesPublishPacket>
  /** `read` returns it at once; resolves when it is on disk, and is `undefined` without a disk. */
  put(packet: AedesPublishPacket): Promise<void> | undefined
  remove(topic: string): Promise<void> | undefined
  /** The messages of `topics` that exist, in their order. */
  read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]>
}

/** Storage in memory, which ends with the process. */
export function memoryBackend(): StorageBackend {
  const queues = new MemoryQueues()
  return {
    queues,
    retained: new RetainedMemory(),
    incoming: new Map(),
    sessions: [],
    keepSession: nothing,
    removeSession: id => queues.remove(id),
    removeSessions: nothing,
    allSubscriptions: none,
    addSubscriptions: nothing,
    removeSubscriptions: nothing,
    addIncoming: nothing,
    removeIncoming: nothing,
    clearIncoming: nothing,
    putWill: nothing,
    removeWill: nothing,
    will: async () => undefined,
    wills: none,
  }
}

async function nothing(): Promise<void> {}

async function* none(): AsyncGenerator<never> {}

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
