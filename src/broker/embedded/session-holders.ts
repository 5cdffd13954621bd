import type { SessionEndReason } from '../../base/session-metrics.js'
import { anonymousOwner, internalOwner, type Owner } from './client-id-registry.js'

/** Bounds of the number of sessions. */
export interface SessionCounts {
  /** Sessions in all. */
  readonly maxSessions: number
  /** Sessions of one user. */
  readonly maxSessionsPerUser: number
  /** Sessions of clients without a name, of one network address. */
  readonly maxAnonymousSessions: number
}

/** The user of a session, or else the network from which it was made. */
export interface Holder {
  readonly owner: Owner | undefined
  /** Of a client without a name; `undefined` in sessions of a version that did not note it. */
  readonly network: string | undefined
}

/** A session that counts for a holder. */
export interface HeldSession {
  readonly id: string
  readonly holder: Holder
}

/** One user, or one network: all of its sessions count together. */
interface Group {
  size: number
  /** Sessions without their client, the longest absent one first. */
  readonly absent: Map<string, HeldSession>
}

/** The key under which the sessions of a holder count together; `undefined` for the program's own, which have no bound. */
export function holderKey({ owner, network }: Holder): string | undefined {
  if (owner === internalOwner) return undefined
  return isAnonymous(owner) ? `network:${network ?? ''}` : owner
}

/** Whether a session belongs to nobody with a name. */
export function isAnonymous(owner: Owner | undefined): owner is undefined | typeof anonymousOwner {
  return owner === undefined || owner === anonymousOwner
}

/** Counts sessions by holder, and decides which one ends where there is one too many. */
export class SessionHolders {
  readonly #counts: SessionCounts
  readonly #groups = new Map<string, Group>()
  #total = 0

  constructor(counts: SessionCounts) {
    this.#counts = counts
  }

  /** Sessions in all, without the program's own. */
  get total(): number {
    return this.#total
  }

  /** Sessions that one holder may have. */
  maxOf({ owner }: Holder): number {
    const { maxSessions, maxSessionsPerUser, maxAnonymousSessions } = this.#counts
    if (owner === internalOwner) return Number.POSITIVE_INFINITY
    return Math.min(maxSessions, isAnonymous(owner) ? maxAnonymousSessions : maxSessionsPerUser)
  }

  /** The bound at which `holder` is, so that another session has to end before it gets one more. */
  boundOf(holder: Holder): SessionEndReason | undefined {
    const key = holderKey(holder)
    if (key === undefined) return undefined
    const size = this.#groups.get(key)?.size ?? 0
    if (size >= this.maxOf(holder)) return isAnonymous(holder.owner) ? 'anonymous-limit' : 'user-limit'
    return this.#total >= this.#counts.maxSessions ? 'total-limit' : undefined
  }

  /**
   * The session to end at a bound: the longest absent one of `holder`; at the bound in all, of the holder that has most. `undefined` where
   * all of them have their client.
   */
  victim(holder: Holder, bound: SessionEndReason): HeldSession | undefined {
    if (bound !== 'total-limit') return first(this.#groups.get(holderKey(holder) ?? ''))
    let largest: Group | undefined
    for (const group of this.#groups.values()) {
      if (group.absent.size > 0 && group.size > (largest?.size ?? 0)) largest = group
    }
    return first(largest)
  }

  /** Counts a session without its client. */
  add(session: HeldSession): void {
    const key = holderKey(session.holder)
    if (key === undefined) return
    const group = this.#groups.get(key) ?? { size: 0, absent: new Map() }
    this.#groups.set(key, group)
    group.size++
    group.absent.set(session.id, session)
    this.#total++
  }

  /** Call when the session's client is there. */
  present({ id, holder }: HeldSession): void {
    this.#groups.get(holderKey(holder) ?? '')?.absent.delete(id)
  }

  /** Call when the session's client has left. */
  absent(session: HeldSession): void {
    this.present(session)
    this.#groups.get(holderKey(session.holder) ?? '')?.absent.set(session.id, session)
  }

  remove(session: HeldSession): void {
    const key = holderKey(session.holder) ?? ''
    const group = this.#groups.get(key)
    if (!group) return
    group.absent.delete(session.id)
    group.size--
    this.#total--
    if (group.size === 0) this.#groups.delete(key)
  }
}

function first(group: Group | undefined): HeldSession | undefined {
  return group?.absent.values().next().value
}
