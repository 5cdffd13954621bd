import type { SessionEndReason } from '../../base/metrics.js'
import { anonymousOwner, internalOwner, type Owner } from './client-id-registry.js'

/** Bounds of the number of sessions. */
export interface SessionCounts {
  readonly maxSessions: number
  readonly maxSessionsPerUser: number
  /** Sessions of the anonymous clients of one network. */
  readonly maxAnonymousSessions: number
}

/** Owner of a session, or else the network that created it. */
export interface Holder {
  readonly owner: Owner | undefined
  /** Of an anonymous client. */
  readonly network: string | undefined
}

export interface HeldSession {
  readonly id: string
  readonly holder: Holder
}

interface Group {
  size: number
  /** Disconnected sessions, the longest disconnected first. */
  readonly absent: Map<string, HeldSession>
}

/** Quota key of a holder; `undefined` for the gateway itself, without bounds. */
export function holderKey({ owner, network }: Holder): string | undefined {
  if (owner === internalOwner) return undefined
  return isAnonymous(owner) ? `network:${network ?? ''}` : owner
}

/** Whether a session has no user. */
export function isAnonymous(owner: Owner | undefined): owner is undefined | typeof anonymousOwner {
  return owner === undefined || owner === anonymousOwner
}

/** Counts sessions by holder, and selects the one to end at a bound. */
export class SessionHolders {
  readonly #counts: SessionCounts
  readonly #groups = new Map<string, Group>()
  #total = 0

  constructor(counts: SessionCounts) {
    this.#counts = counts
  }

  /** All sessions but the gateway's own. */
  get total(): number {
    return this.#total
  }

  maxOf({ owner }: Holder): number {
    const { maxSessions, maxSessionsPerUser, maxAnonymousSessions } = this.#counts
    if (owner === internalOwner) return Number.POSITIVE_INFINITY
    return Math.min(maxSessions, isAnonymous(owner) ? maxAnonymousSessions : maxSessionsPerUser)
  }

  /** The bound that `holder` has reached: another session must end before it gets one more. */
  boundOf(holder: Holder): SessionEndReason | undefined {
    const key = holderKey(holder)
    if (key === undefined) return undefined
    const size = this.#groups.get(key)?.size ?? 0
    if (size >= this.maxOf(holder)) return isAnonymous(holder.owner) ? 'anonymous-limit' : 'user-limit'
    return this.#total >= this.#counts.maxSessions ? 'total-limit' : undefined
  }

  /**
   * The session to end at a bound: the longest disconnected one of `holder`; at the total bound, of the holder with the most. `undefined`
   * where all are connected.
   */
  victim(holder: Holder, bound: SessionEndReason): HeldSession | undefined {
    if (bound !== 'total-limit') return first(this.#groups.get(holderKey(holder) ?? ''))
    let largest: Group | undefined
    for (const group of this.#groups.values()) {
      if (group.absent.size > 0 && group.size > (largest?.size ?? 0)) largest = group
    }
    return first(largest)
  }

  /** Counts a disconnected session. */
  add(session: HeldSession): void {
    const key = holderKey(session.holder)
    if (key === undefined) return
    const group = this.#groups.get(key) ?? { size: 0, absent: new Map() }
    this.#groups.set(key, group)
    group.size++
    group.absent.set(session.id, session)
    this.#total++
  }

  present({ id, holder }: HeldSession): void {
    this.#groups.get(holderKey(holder) ?? '')?.absent.delete(id)
  }

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
