import { GatewayError } from '../../base/errors.js'
import { FairQuota } from '../../base/fair-quota.js'
import type { Logger } from '../../base/log.js'
import { LogRate } from '../../base/log-rate.js'
import type { SessionBound, SessionEndReason } from '../../base/metrics.js'
import type { Owner } from './client-id-registry.js'
import { type Holder, holderKey, isAnonymous, type SessionCounts, SessionHolders } from './session-holders.js'
import type { QueueSize } from './session-queues.js'
import type { StorageBackend, StoredSession } from './storage-backend.js'

/** Maximum unacknowledged messages of a connected client: packet identifiers have 16 bits [MQTT-2.3.1-1]. */
const maxUnacknowledged = 65_535

/** Approximate overhead of a session, in bytes. */
const sessionOverhead = 1000

export interface SessionLimits extends SessionCounts {
  /** Queued messages of a disconnected client. */
  readonly maxQueuedMessages: number
  /** Bytes of the queued messages of one session. */
  readonly maxSessionBytes: number
  /** Bytes of all sessions, shared by users and networks. */
  readonly maxSessionsBytes: number
  /** Time after which a disconnected session ends, in milliseconds. */
  readonly sessionExpiry: number | 'off'
}

interface Session {
  readonly id: string
  holder: Holder
  seen: number
  queued: number
  /** Bytes of the queued messages, the filters, and the overhead. */
  bytes: number
  queueBytes: number
  isNew: boolean
  warned: boolean
}

export interface SessionsOptions {
  readonly storage: StorageBackend
  readonly limits: SessionLimits
  /** Removes an ended session from the storage. */
  readonly end: (id: string) => Promise<void>
  readonly onEnded?: ((reason: SessionEndReason) => void) | undefined
  readonly onDropped?: ((bound: SessionBound) => void) | undefined
  readonly log: Logger
  readonly onError: (error: unknown) => void
}

/**
 * All sessions: since when each is disconnected, its queued messages, and the bytes of all. Each has a holder, a user or network, with a
 * fair share.
 */
export class Sessions<Connected extends { readonly id: string } = { readonly id: string }> {
  /** Messages that were not queued for lack of room. */
  dropped = 0
  readonly #options: SessionsOptions
  readonly #sessions = new Map<string, Session>()
  readonly #holders: SessionHolders
  readonly #quota: FairQuota
  readonly #connected = new Map<string, Connected>()
  /** By holder. */
  readonly #warnings = new LogRate()

  constructor(options: SessionsOptions) {
    this.#options = options
    this.#holders = new SessionHolders(options.limits)
    this.#quota = new FairQuota(options.limits.maxSessionsBytes)
  }

  get figures(): { readonly sessions: number; readonly bytes: number } {
    return { sessions: this.#holders.total, bytes: this.#quota.total }
  }

  /**
   * Restores sessions of an earlier run within the bounds, the most recently connected first.
   *
   * @returns the sessions beyond the bounds
   */
  restore(stored: Iterable<StoredSession>): StoredSession[] {
    const leftOut: StoredSession[] = []
    const restored: Session[] = []
    for (const one of [...stored].sort((a, b) => b.seen - a.seen)) {
      const { id, owner, network, seen } = one
      const session = { ...newSession(id, { owner, network }), seen, isNew: false }
      if (this.#holders.boundOf(session.holder) || this.#exceededBy(session.holder, session.bytes)) leftOut.push(one)
      else restored.push(this.#add(session))
    }
    // In the order of disconnecting.
    for (const session of restored.reverse()) this.#holders.absent(session)
    return leftOut
  }

  /** Bytes by which a session may grow. */
  roomOf(id: string): number {
    const session = this.#sessions.get(id)
    const key = session && holderKey(session.holder)
    if (key === undefined) return Number.POSITIVE_INFINITY
    return Math.max(0, Math.floor((this.#quota.max - this.#quota.total - this.#quota.of(key)) / 2))
  }

  /** Bytes by which a session's queue may grow. */
  queueRoomOf(id: string): number {
    const { queueBytes = 0 } = this.#sessions.get(id) ?? {}
    return Math.max(0, Math.min(this.#options.limits.maxSessionBytes - queueBytes, this.roomOf(id)))
  }

  /** Counts the queue of a restored session. */
  restoreQueue(id: string, { queued, bytes }: QueueSize): void {
    const session = this.#sessions.get(id)
    if (!session) return
    session.queued = queued
    this.#growQueue(session, bytes)
  }

  has(id: string): boolean {
    return this.#sessions.has(id)
  }

  /** Identifies a session, until it ends. */
  get(id: string): object | undefined {
    return this.#sessions.get(id)
  }

  connectedClient(id: string): Connected | undefined {
    return this.#connected.get(id)
  }

  /** Whether the client of a session is connected. */
  isConnected(id: string): boolean {
    return this.#connected.has(id)
  }

  /** The owner of a session; `undefined` without a session, or without access control when it was created. */
  ownerOf(id: string): Owner | undefined {
    return this.#sessions.get(id)?.holder.owner
  }

  /**
   * Creates a session where there is none. At a bound another one ends: the longest disconnected one of the same holder, or at the total bound, of
   * the holder with the most.
   *
   * @returns whether the holder may have sessions at all
   * @throws {GatewayError} `too-many-sessions` where each session that could end is connected
   */
  admit(id: string, holder: Holder): boolean {
    const known = this.#sessions.get(id)
    if (!known && this.#holders.maxOf(holder) === 0) return false
    // A session without an owner goes to the user who opens it.
    const isOther = known?.holder.owner === undefined && holder.owner !== undefined
    if (!known || isOther) this.#create({ ...(known ?? newSession(id, holder)), holder }, known)
    this.#holders.present(known && !isOther ? known : { id, holder })
    return true
  }

  #create(session: Session, replaced: Session | undefined): void {
    if (replaced) this.#drop(replaced)
    try {
      this.#makeRoom(session.holder)
    } catch (error) {
      if (replaced) this.#add(replaced)
      throw error
    }
    this.#add(session)
  }

  /** Call when a connection with an admitted session is closed. */
  abandon(id: string): void {
    const session = this.#sessions.get(id)
    if (session && !this.#connected.has(id)) this.#holders.absent(session)
  }

  /** Opens a session, or creates it; returns whether it existed. */
  open(id: string): boolean {
    const session = this.#sessions.get(id) ?? newSession(id, { owner: undefined, network: undefined })
    if (!this.#sessions.has(id)) this.#add(session)
    const known = !session.isNew
    session.isNew = false
    this.#touch(session)
    return known
  }

  /** Call when `client` is connected, with a session or without. */
  connected(client: Connected): void {
    this.#connected.set(client.id, client)
    const session = this.#sessions.get(client.id)
    if (session) this.#holders.present(session)
  }

  /** Call when `client` has disconnected; ignored where another one has taken over its client id. */
  disconnected(client: Connected): void {
    if (this.#connected.get(client.id) !== client) return
    this.#connected.delete(client.id)
    const session = this.#sessions.get(client.id)
    if (!session) return
    this.#holders.absent(session)
    this.#touch(session)
  }

  /** Removes a session, but not from the storage. */
  remove(id: string): void {
    const session = this.#sessions.get(id)
    if (session) this.#drop(session)
  }

  /** Stores the current time for each connected session, in a step for each. Call about once an hour. */
  *touch(): Generator<void> {
    for (const id of this.#connected.keys()) {
      const session = this.#sessions.get(id)
      if (session) yield this.#touch(session)
    }
  }

  *expired(): Generator<string> {
    const { sessionExpiry } = this.#options.limits
    if (sessionExpiry === 'off') return
    for (const { id, seen } of this.#sessions.values()) {
      if (!this.#connected.has(id) && seen + sessionExpiry <= Date.now()) yield id
    }
  }

  /**
   * Whether another message of `bytes` may be queued for the session; it counts until `release`. As in mosquitto, the new message is dropped
   * otherwise. An empty queue takes a message of any size.
   *
   * @param topic of the message, for the log
   */
  admitMessage(id: string, bytes: number, topic?: string): boolean {
    const session = this.#sessions.get(id)
    if (!session) return false
    const bound = this.#exceeded(session, bytes)
    if (bound === undefined) {
      session.queued++
      this.#growQueue(session, bytes)
      return true
    }
    this.dropped++
    this.#options.onDropped?.(bound)
    if (!session.warned) {
      session.warned = true
      const reason = `${session.queued} messages wait for the session (embedded.${bound})`
      const fields = { clientId: id, ...logFieldsOf(session.holder), topic }
      this.#options.log.warn(fields, `${reason}: dropping further ones`)
    }
    return false
  }

  #exceeded(session: Session, bytes: number): SessionBound | undefined {
    const { maxQueuedMessages, maxSessionBytes } = this.#options.limits
    const limit = this.#connected.has(session.id) ? Math.max(maxQueuedMessages, maxUnacknowledged) : maxQueuedMessages
    if (session.queued >= limit) return 'maxQueuedMessages'
    if (session.queued > 0 && session.queueBytes + bytes > maxSessionBytes) return 'maxSessionBytes'
    return this.#exceededBy(session.holder, bytes) ? 'maxSessionsBytes' : undefined
  }

  release(id: string, bytes: number): void {
    const session = this.#sessions.get(id)
    if (!session) return
    if (session.queued > 0) session.queued--
    this.#growQueue(session, -bytes)
  }

  growQueue(id: string, bytes: number): void {
    const session = this.#sessions.get(id)
    if (session) this.#growQueue(session, bytes)
  }

  #growQueue(session: Session, bytes: number): void {
    const change = Math.max(bytes, -session.queueBytes)
    session.queueBytes += change
    this.#grow(session, change)
  }

  /** Whether a session may grow by `bytes`; true without a session. */
  fits(id: string, bytes: number): boolean {
    const session = this.#sessions.get(id)
    return session === undefined || !this.#exceededBy(session.holder, bytes)
  }

  grow(id: string, bytes: number): void {
    const session = this.#sessions.get(id)
    if (session) this.#grow(session, bytes)
  }

  #grow(session: Session, bytes: number): void {
    const change = Math.max(bytes, sessionOverhead - session.bytes)
    session.bytes += change
    const key = holderKey(session.holder)
    if (key === undefined) return
    if (change > 0) this.#quota.take(key, change)
    else this.#quota.giveBack(key, -change)
  }

  #exceededBy(holder: Holder, bytes: number): boolean {
    const key = holderKey(holder)
    return key !== undefined && this.#quota.exceededBy(key, bytes) !== undefined
  }

  #add(session: Session): Session {
    this.#sessions.set(session.id, session)
    this.#holders.add(session)
    const key = holderKey(session.holder)
    if (key !== undefined) this.#quota.take(key, session.bytes)
    return session
  }

  #drop(session: Session): void {
    this.#sessions.delete(session.id)
    this.#holders.remove(session)
    const key = holderKey(session.holder)
    if (key !== undefined) this.#quota.giveBack(key, session.bytes)
  }

  #makeRoom(holder: Holder): void {
    for (let bound = this.#holders.boundOf(holder); bound; bound = this.#holders.boundOf(holder)) {
      const victim = this.#holders.victim(holder, bound)
      if (!victim) throw new GatewayError('too-many-sessions')
      this.remove(victim.id)
      this.#options.end(victim.id).catch(this.#options.onError)
      this.#options.onEnded?.(bound)
      this.#warn(victim.id, victim.holder, bound)
    }
  }

  /** Once a minute for each holder: each new session may end another one. */
  #warn(clientId: string, holder: Holder, bound: SessionEndReason): void {
    if (!this.#warnings.allows(holderKey(holder))) return
    this.#options.log.warn({ clientId, ...logFieldsOf(holder) }, endings[bound])
  }

  #touch(session: Session): void {
    session.seen = Date.now()
    this.#options.storage
      .keepSession(session.id, { ...session.holder, seen: session.seen })
      .catch(this.#options.onError)
  }
}

const endings: Readonly<Record<SessionEndReason, string>> = {
  'user-limit': 'ended a disconnected session: its user has more than embedded.maxSessionsPerUser',
  'anonymous-limit': 'ended a disconnected session: its network has more than embedded.maxAnonymousSessions',
  'total-limit': 'ended a disconnected session: there are embedded.maxSessions sessions',
  expired: 'ended a disconnected session: embedded.sessionExpiry',
}

function newSession(id: string, holder: Holder): Session {
  return { id, holder, seen: Date.now(), queued: 0, bytes: sessionOverhead, queueBytes: 0, isNew: true, warned: false }
}

/** The owner of a session, or the network of an anonymous client. */
function logFieldsOf({ owner, network }: Holder): object {
  return isAnonymous(owner) ? { network } : { owner }
}
