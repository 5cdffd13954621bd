import { GatewayError } from '../../base/errors.js'
import { FairQuota } from '../../base/fair-quota.js'
import type { Logger } from '../../base/log.js'
import type { SessionBound, SessionEndReason } from '../../base/session-metrics.js'
import type { Owner } from './client-id-registry.js'
import { type Holder, holderKey, isAnonymous, type SessionCounts, SessionHolders } from './session-holders.js'
import type { QueueSize } from './session-queues.js'
import type { StorageBackend, StoredSession } from './storage-backend.js'

/** As many messages as can be under way to a client that is connected: packet identifiers have 16 bits [MQTT-2.3.1-1]. */
const maxUnacknowledged = 65_535

/** Bytes that a session takes beyond its filters and messages, about. */
const sessionOverhead = 1000

/** How often the log names the sessions of one holder that end at a bound, in milliseconds; and how many holders it remembers. */
const warningInterval = 60_000
const maxWarned = 1000

/** Bounds of the sessions. */
export interface SessionLimits extends SessionCounts {
  /** Messages that may wait for a client that is not connected. */
  readonly maxQueuedMessages: number
  /** Bytes of the messages that wait in one session. */
  readonly maxSessionBytes: number
  /** Bytes of all sessions together, shared among users and networks. */
  readonly maxSessionsBytes: number
  /** After how long without its client a session ends, in milliseconds. */
  readonly sessionExpiry: number | 'off'
}

interface Session {
  readonly id: string
  holder: Holder
  seen: number
  queued: number
  /** Of the queued messages, its filters, and itself. */
  bytes: number
  /** Of the queued messages alone. */
  queueBytes: number
  /** Whether its client is yet to take it up for the first time. */
  isNew: boolean
  warned: boolean
}

/** Storage, bounds and callbacks of the sessions. */
export interface SessionsOptions {
  readonly base: StorageBackend
  readonly limits: SessionLimits
  /** Ends a session that is not among these any more: removes it from the base, with all that is in it. */
  readonly end: (id: string) => Promise<void>
  readonly onEnded?: ((reason: SessionEndReason) => void) | undefined
  readonly onDropped?: ((bound: SessionBound) => void) | undefined
  readonly log: Logger
  readonly onError: (error: unknown) => void
}

/**
 * The sessions that there are: since when each is without its client, how many messages wait for it, and what all of them take. Each has a
 * holder, and no holder takes what the others need.
 */
export class Sessions {
  /** Messages that were not queued because there was no room for them. */
  dropped = 0
  readonly #options: SessionsOptions
  readonly #sessions = new Map<string, Session>()
  readonly #holders: SessionHolders
  readonly #quota: FairQuota
  readonly #connected = new Map<string, object>()
  /** By holder: when the log named it last. */
  readonly #warned = new Map<string, number>()

  constructor(options: SessionsOptions) {
    this.#options = options
    this.#holders = new SessionHolders(options.limits)
    this.#quota = new FairQuota(options.limits.maxSessionsBytes)
  }

  /** Sessions, and the bytes that they take. */
  get figures(): { readonly sessions: number; readonly bytes: number } {
    return { sessions: this.#holders.total, bytes: this.#quota.total }
  }

  /**
   * Takes up the sessions of an earlier run, as far as the bounds allow: those whose client was there last.
   *
   * @returns those that are left out
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
    // In the order in which they lost their clients.
    for (const session of restored.reverse()) this.#holders.absent(session)
    return leftOut
  }

  /** Bytes that a session may take beyond those that it takes. */
  roomOf(id: string): number {
    const session = this.#sessions.get(id)
    const key = session && holderKey(session.holder)
    if (key === undefined) return Number.POSITIVE_INFINITY
    return Math.max(0, Math.floor((this.#quota.max - this.#quota.total - this.#quota.of(key)) / 2))
  }

  /** Bytes that the messages of a session may take beyond those that they take. */
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

  /** Whether the client of a session is connected now. */
  isConnected(id: string): boolean {
    return this.#connected.has(id)
  }

  /** The owner of a session; `undefined` where there is none, and where nobody asked when it was made. */
  ownerOf(id: string): Owner | undefined {
    return this.#sessions.get(id)?.holder.owner
  }

  /**
   * Makes a session where there is none. At a bound another one ends for it: the longest absent of the same holder, or at the bound in all,
   * of the holder that has most.
   *
   * @returns whether the holder may have sessions at all; if not, there is none
   * @throws {Ending} `too-many-sessions` where each session that could end has its client
   */
  admit(id: string, holder: Holder): boolean {
    const known = this.#sessions.get(id)
    if (!known && this.#holders.maxOf(holder) === 0) return false
    // A session of nobody in particular goes to the user who takes it up.
    const isOther = known?.holder.owner === undefined && holder.owner !== undefined
    if (!known || isOther) this.#make({ ...(known ?? newSession(id, holder)), holder }, known)
    this.#holders.present(known && !isOther ? known : { id, holder })
    return true
  }

  #make(session: Session, instead: Session | undefined): void {
    if (instead) this.#drop(instead)
    try {
      this.#makeRoom(session.holder)
    } catch (error) {
      if (instead) this.#add(instead)
      throw error
    }
    this.#add(session)
  }

  /** Call when a connection is closed for which a session was admitted. */
  abandon(id: string): void {
    const session = this.#sessions.get(id)
    if (session && !this.#connected.has(id)) this.#holders.absent(session)
  }

  /** Call when a client takes its session up; makes it where there is none. Returns whether there was one. */
  open(id: string): boolean {
    const session = this.#sessions.get(id) ?? newSession(id, { owner: undefined, network: undefined })
    if (!this.#sessions.has(id)) this.#add(session)
    const known = !session.isNew
    session.isNew = false
    this.#touch(session)
    return known
  }

  /** Call when `client` is connected, with a session or without. */
  connected(client: { readonly id: string }): void {
    this.#connected.set(client.id, client)
    const session = this.#sessions.get(client.id)
    if (session) this.#holders.present(session)
  }

  /** Call when `client` is no longer connected; nothing happens where another one has taken its place. */
  disconnected(client: { readonly id: string }): void {
    if (this.#connected.get(client.id) !== client) return
    this.#connected.delete(client.id)
    const session = this.#sessions.get(client.id)
    if (!session) return
    this.#holders.absent(session)
    this.#touch(session)
  }

  /** Forgets a session; its storage is the caller's business. */
  remove(id: string): void {
    const session = this.#sessions.get(id)
    if (session) this.#drop(session)
  }

  /** Stores that the clients that are connected are so now; in a step for each. To be called every hour or so. */
  *touch(): Generator<void> {
    for (const id of this.#connected.keys()) {
      const session = this.#sessions.get(id)
      if (session) yield this.#touch(session)
    }
  }

  /** The sessions that have been without their client for too long, each as it is then. */
  *expired(): Generator<string> {
    const { sessionExpiry } = this.#options.limits
    if (sessionExpiry === 'off') return
    for (const { id, seen } of this.#sessions.values()) {
      if (!this.#connected.has(id) && seen + sessionExpiry <= Date.now()) yield id
    }
  }

  /**
   * Whether one more message of so many bytes may be queued for the session; if so, it counts until `release`. As in mosquitto, it is the
   * new message that is dropped. A queue that is empty takes a message of any size.
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
      const reason = `${session.queued} messages wait for the session (mqtt.${bound})`
      const fields = { clientId: id, ...logFieldsOf(session.holder), topic }
      this.#options.log.warn(fields, `${reason}; further ones for it are dropped`)
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

  /** Call when a message of so many bytes has left the session's queue. */
  release(id: string, bytes: number): void {
    const session = this.#sessions.get(id)
    if (!session) return
    if (session.queued > 0) session.queued--
    this.#growQueue(session, -bytes)
  }

  /** Call when the messages of a session take so many bytes more. */
  growQueue(id: string, bytes: number): void {
    const session = this.#sessions.get(id)
    if (session) this.#growQueue(session, bytes)
  }

  #growQueue(session: Session, bytes: number): void {
    const change = Math.max(bytes, -session.queueBytes)
    session.queueBytes += change
    this.#grow(session, change)
  }

  /** Whether the session, if there is one, may take so many bytes more. */
  fits(id: string, bytes: number): boolean {
    const session = this.#sessions.get(id)
    return session === undefined || !this.#exceededBy(session.holder, bytes)
  }

  /** Call when the filters of a session take so many bytes more. */
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

  /** Once a minute for each holder, as each new session may end another one. */
  #warn(clientId: string, holder: Holder, bound: SessionEndReason): void {
    const key = holderKey(holder) ?? ''
    const now = Date.now()
    if (now - (this.#warned.get(key) ?? Number.NEGATIVE_INFINITY) < warningInterval) return
    if (this.#warned.size >= maxWarned) this.#warned.clear()
    this.#warned.set(key, now)
    this.#options.log.warn({ clientId, ...logFieldsOf(holder) }, endings[bound])
  }

  #touch(session: Session): void {
    session.seen = Date.now()
    this.#options.base.keepSession(session.id, { ...session.holder, seen: session.seen }).catch(this.#options.onError)
  }
}

const endings: Readonly<Record<SessionEndReason, string>> = {
  'user-limit': 'ended a session without its client, because its user makes more sessions than mqtt.maxSessionsPerUser',
  'anonymous-limit':
    'ended a session without its client, because its network makes more sessions than mqtt.maxAnonymousSessions',
  'total-limit': 'ended a session without its client, because there are mqtt.maxSessions of them',
  expired: 'ended a session without its client, because of mqtt.sessionExpiry',
}

function newSession(id: string, holder: Holder): Session {
  return { id, holder, seen: Date.now(), queued: 0, bytes: sessionOverhead, queueBytes: 0, isNew: true, warned: false }
}

/** The user of a session, or the network of a client without a name. */
function logFieldsOf({ owner, network }: Holder): object {
  return isAnonymous(owner) ? { network } : { owner }
}
