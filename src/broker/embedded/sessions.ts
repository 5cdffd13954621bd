import { Deadlines } from '../../base/deadlines.js'
import { GatewayError } from '../../base/errors.js'
import { FairQuota } from '../../base/fair-quota.js'
import type { Logger } from '../../base/log.js'
import { LogRate } from '../../base/log-rate.js'
import type { SessionBound, SessionEndReason } from '../../base/metrics.js'
import type { TimeSlicer } from '../../base/time-slicer.js'
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
  /** Time after which a disconnected session ends, in milliseconds, unless its client asked for less. */
  readonly sessionExpiry: number | 'off'
}

/** The session expiry interval of a session that does not end, in seconds (MQTT 5 §3.1.2.11.2). */
const neverExpires = 0xffff_ffff

interface Session {
  readonly id: string
  holder: Holder
  /** When its client was last known to be connected. */
  seen: number
  /** Its session expiry interval in seconds; `undefined` before MQTT 5. */
  expiry: number | undefined
  /** That of the last connection's CONNECT. */
  nextExpiry: number | undefined
  /** Whether a connection has opened it. */
  isOpen: boolean
  queued: number
  /** Bytes of the queued messages, the filters, and the overhead. */
  bytes: number
  queueBytes: number
  isNew: boolean
  warned: boolean
}

export interface SessionsOptions {
  readonly storage: Pick<StorageBackend, 'keepSession'>
  readonly limits: SessionLimits
  readonly slicer: TimeSlicer
  /** Removes an ended session from the storage. */
  readonly end: (id: string) => Promise<void>
  readonly onEnded?: ((reason: SessionEndReason) => void) | undefined
  readonly onDropped?: ((bound: SessionBound) => void) | undefined
  readonly log: Logger
  readonly onError: (error: unknown) => void
}

/**
 * All sessions: when each disconnected one ends, its queued messages, and the bytes of all. Each has a holder, a user or network, with a fair
 * share.
 */
export class Sessions<Connected extends { readonly id: string } = { readonly id: string }> {
  /** Messages that were not queued for lack of room. */
  dropped = 0
  readonly #options: SessionsOptions
  readonly #sessions = new Map<string, Session>()
  readonly #holders: SessionHolders
  readonly #quota: FairQuota
  readonly #connected = new Map<string, Connected>()
  /** When disconnected sessions end. */
  readonly #deadlines: Deadlines<string>
  /** By holder. */
  readonly #warnings = new LogRate()

  constructor(options: SessionsOptions) {
    this.#options = options
    this.#holders = new SessionHolders(options.limits)
    this.#quota = new FairQuota(options.limits.maxSessionsBytes)
    const { slicer, onError } = options
    this.#deadlines = new Deadlines({ onDue: id => this.#expire(id), onError, slicer, cause: 'sessions' })
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
    // The downtime does not count for those that were connected.
    const seenAt = ({ seen, wasConnected }: StoredSession): number => (wasConnected ? Date.now() : seen)
    for (const one of [...stored].sort((a, b) => seenAt(b) - seenAt(a))) {
      const { id, owner, network, expiry } = one
      const session = { ...newSession(id, { owner, network }), seen: seenAt(one), expiry, isNew: false }
      if (this.#holders.boundOf(session.holder) || this.#exceededBy(session.holder, session.bytes)) leftOut.push(one)
      else {
        restored.push(this.#add(session))
        if (one.wasConnected) this.#store(session)
      }
    }
    // In the order of disconnecting.
    for (const session of restored.reverse()) this.#setAbsent(session)
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

  /** The queue of a session; empty without one. */
  queueOf(id: string): { readonly queuedMessages: number; readonly queuedBytes: number } {
    const { queued = 0, queueBytes = 0 } = this.#sessions.get(id) ?? {}
    return { queuedMessages: queued, queuedBytes: queueBytes }
  }

  has(id: string): boolean {
    return this.#sessions.has(id)
  }

  /** Whether a client has opened the session, in this run or an earlier one. */
  wasOpened(id: string): boolean {
    return this.#sessions.get(id)?.isNew === false
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
    return this.holderOf(id)?.owner
  }

  /** The holder of a session; `undefined` without a session. */
  holderOf(id: string): Holder | undefined {
    return this.#deadlines.isDue(id) ? undefined : this.#sessions.get(id)?.holder
  }

  /** The session expiry interval given to `admit`, in seconds. */
  nextExpiryOf(id: string): number | undefined {
    return this.#sessions.get(id)?.nextExpiry
  }

  /** The session with a client id; one whose time is over ends now. */
  #current(id: string): Session | undefined {
    if (this.#deadlines.isDue(id)) this.#expire(id).catch(this.#options.onError)
    return this.#sessions.get(id)
  }

  /**
   * Creates a session where there is none. At a bound another one ends: the longest disconnected one of the same holder, or at the total bound, of
   * the holder with the most.
   *
   * @param expiry the session expiry interval for `open`, in seconds; `undefined` before MQTT 5
   * @returns whether the holder may have sessions at all
   * @throws {GatewayError} `too-many-sessions` where each session that could end is connected
   */
  admit(id: string, holder: Holder, expiry?: number): boolean {
    const known = this.#current(id)
    if (!known && this.#holders.maxOf(holder) === 0) return false
    // A session without an owner goes to the user who opens it.
    const isOther = known?.holder.owner === undefined && holder.owner !== undefined
    if (!known || isOther) this.#create({ ...(known ?? newSession(id, holder)), holder }, known)
    this.#holders.present(known && !isOther ? known : { id, holder })
    this.#deadlines.delete(id)
    const session = this.#sessions.get(id)
    if (session) session.nextExpiry = expiry
    return true
  }

  #create(session: Session, replaced: Session | undefined): void {
    if (replaced) this.#drop(replaced)
    try {
      this.#makeRoom(session.holder)
    } catch (error) {
      if (replaced) {
        this.#add(replaced)
        this.abandon(replaced.id)
      }
      throw error
    }
    this.#add(session)
  }

  /** Call when a connection with an admitted session is closed. */
  abandon(id: string): void {
    const session = this.#sessions.get(id)
    if (session && !this.#connected.has(id)) this.#setAbsent(session)
  }

  /**
   * Opens a session, or creates it; returns whether it existed.
   *
   * @param expiry its session expiry interval in seconds; default: that of `admit`
   */
  open(id: string, expiry?: number): boolean {
    const session = this.#current(id) ?? newSession(id, { owner: undefined, network: undefined })
    if (!this.#sessions.has(id)) this.#add(session)
    const known = !session.isNew
    session.isNew = false
    session.isOpen = true
    session.nextExpiry = expiry ?? session.nextExpiry
    session.expiry = session.nextExpiry
    this.#deadlines.delete(id)
    this.#touch(session)
    return known
  }

  /** Changes the session expiry interval of a session, in seconds, as DISCONNECT may (MQTT 5 §3.14.2.2.2). */
  setExpiry(id: string, seconds: number): void {
    const session = this.#sessions.get(id)
    if (!session || session.expiry === seconds) return
    session.expiry = seconds
    this.#store(session)
    if (!session.isOpen) this.abandon(id)
  }

  /** Ends a session when its client is absent, or now; returns whether there is one. */
  endWhenAbsent(id: string): boolean {
    if (!this.#current(id)) return false
    this.setExpiry(id, 0)
    return true
  }

  /** Call when `client` is connected, with a session or without. */
  connected(client: Connected): void {
    this.#connected.set(client.id, client)
    const session = this.#sessions.get(client.id)
    if (!session) return
    this.#holders.present(session)
    this.#deadlines.delete(client.id)
    // The end of the connection that it takes over came after `open`.
    if (session.isOpen && session.expiry === session.nextExpiry) return
    session.isOpen = true
    session.expiry = session.nextExpiry
    this.#touch(session)
  }

  /** Call when `client` has disconnected; ignored where another one has taken over its client id. */
  disconnected(client: Connected): void {
    if (this.#connected.get(client.id) !== client) return
    this.#connected.delete(client.id)
    const session = this.#sessions.get(client.id)
    if (session) this.#setAbsent(session)
  }

  /** From now on, the session ends when its time is over. */
  #setAbsent(session: Session): void {
    this.#holders.absent(session)
    if (session.isOpen) {
      session.isOpen = false
      this.#touch(session)
    }
    const lifetime = this.#lifetimeOf(session)
    if (lifetime === Number.POSITIVE_INFINITY) this.#deadlines.delete(session.id)
    else this.#deadlines.set(session.id, session.seen + lifetime)
  }

  /** Time after which the session ends when it is disconnected, in milliseconds. */
  #lifetimeOf({ expiry = neverExpires }: Session): number {
    const { sessionExpiry } = this.#options.limits
    const max = sessionExpiry === 'off' ? Number.POSITIVE_INFINITY : sessionExpiry
    return expiry === neverExpires ? max : Math.min(max, expiry * 1000)
  }

  /** Removes a session, but not from the storage. */
  remove(id: string): void {
    const session = this.#sessions.get(id)
    if (session) this.#drop(session)
  }

  /** Ends the sessions whose time is over; resolves when they are removed. Later ones end by themselves. */
  expire(): Promise<void> {
    return this.#deadlines.run()
  }

  /** Ends no more sessions by time; resolves when the last one is removed. */
  close(): Promise<void> {
    return this.#deadlines.stop()
  }

  #expire(id: string): Promise<void> {
    this.#options.onEnded?.('expired')
    this.remove(id)
    return this.#options.end(id)
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
    this.#deadlines.delete(session.id)
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
    this.#store(session)
  }

  #store({ id, holder, seen, expiry, isOpen }: Session): void {
    const { storage, onError } = this.#options
    const stored = { ...holder, seen, wasConnected: isOpen, ...(expiry !== undefined && { expiry }) }
    storage.keepSession(id, stored).catch(onError)
  }
}

const endings: Readonly<Record<SessionEndReason, string>> = {
  'user-limit': 'ended a disconnected session: its user has more than embedded.maxSessionsPerUser',
  'anonymous-limit': 'ended a disconnected session: its network has more than embedded.maxAnonymousSessions',
  'total-limit': 'ended a disconnected session: there are embedded.maxSessions sessions',
  expired: 'ended a disconnected session: embedded.sessionExpiry',
}

function newSession(id: string, holder: Holder): Session {
  const queue = { queued: 0, bytes: sessionOverhead, queueBytes: 0, warned: false }
  return {
    id,
    holder,
    seen: Date.now(),
    expiry: undefined,
    nextExpiry: undefined,
    isOpen: false,
    isNew: true,
    ...queue,
  }
}

/** The owner of a session, or the network of an anonymous client. */
function logFieldsOf({ owner, network }: Holder): object {
  return isAnonymous(owner) ? { network } : { owner }
}
