import { type Clock, systemClock } from '../base/clock.js'
import { FairQuota } from '../base/fair-quota.js'
import { SizeRanks } from '../base/size-ranks.js'
import { SmallMap } from '../base/small-map.js'
import { FilterIndex } from '../topics/filter-index.js'
import type { FilterValues } from '../topics/filter-node.js'
import type { Listener, ListenerTransport, Presence, PresenceHandle, PresentListener } from './presence.js'
import type { PresenceMessages } from './presence-messages.js'

export interface PresenceRegistryOptions {
  /** Milliseconds that a listener stays present after it has left; 0 for none. */
  readonly grace: number
  /** Publishes joins and leaves; left out for none. */
  readonly messages?: Pick<PresenceMessages, 'publish'> | undefined
  readonly clock?: Clock
  /** Quota key of a listener. Default: user or address. */
  readonly accountOf?: (user: string | undefined, address: string) => string
  /**
   * Listeners in their grace time, counted once for each filter and shared as in `FairQuota`; beyond, listeners leave at once: a client that polls
   * under a new name each time would fill the memory. Default: 50,000.
   */
  readonly maxLingering?: number
  /**
   * Listeners, counted and shared in the same way; beyond, further ones are not present. A client may have a thousand filters, and each takes about
   * 1 KB here. Default: 500,000.
   */
  readonly maxMemberships?: number
}

/** A listener. */
interface Member {
  readonly key: string
  readonly device: string
  readonly user: string | undefined
  /** The quota key of its first connection. */
  readonly account: string
  readonly transport: ListenerTransport
  /** By filter. */
  readonly memberships: SmallMap<string, Membership>
  connections: number
  since: number
  lastSeen: number
  /** The last walk that visited it. */
  walk: number
}

/** One filter of a listener. */
interface Membership {
  readonly filter: string
  readonly member: Member
  /** Connections with this filter. */
  connections: number
  /** End of its grace time (monotonic), if that has begun. */
  due: number
}

/** Listeners that are removed in one tick of the event loop after their grace time: some 2 ms. */
const maxReleases = 500

/**
 * Listeners by filter. A change costs as much as the connection has filters. All grace times are equally long, so one queue and one timer serve
 * all. A listener takes some 450 bytes with one filter that others have too, and three times that with one of its own.
 */
export class PresenceRegistry implements Presence {
  /** One connection of a listener. */
  static readonly #Connection = class implements PresenceHandle {
    readonly #registry: PresenceRegistry
    readonly #member: Member
    readonly #memberships = new SmallMap<string, Membership>()
    #hasLeft = false

    constructor(registry: PresenceRegistry, member: Member) {
      this.#registry = registry
      this.#member = member
    }

    seen(): void {
      this.#member.lastSeen = this.#registry.#clock.now()
    }

    add(topics: Iterable<string>): void {
      for (const filter of topics) {
        if (this.#hasLeft || this.#memberships.has(filter)) continue
        const membership = this.#registry.#join(this.#member, filter)
        if (membership) this.#memberships.set(filter, membership)
      }
    }

    remove(topics: Iterable<string>): void {
      for (const filter of topics) {
        const membership = this.#memberships.get(filter)
        if (!membership) continue
        this.#memberships.delete(filter)
        this.#registry.#leave(membership, 0)
      }
    }

    change(topics: readonly string[]): void {
      const wanted = new Set(topics)
      this.add(wanted)
      this.remove([...this.#memberships.keys()].filter(filter => !wanted.has(filter)))
    }

    leave(): void {
      if (this.#hasLeft) return
      this.#hasLeft = true
      this.seen()
      this.#registry.#left(this.#member, this.#memberships.values())
      this.#memberships.clear()
    }
  }

  readonly #grace: number
  readonly #messages: Pick<PresenceMessages, 'publish'> | undefined
  readonly #clock: Clock
  readonly #accountOf: (user: string | undefined, address: string) => string
  readonly #users = byTransport<Member>()
  /** Listeners without a user, by device: their keys need no further strings. */
  readonly #anonymous = byTransport<Member>()
  readonly #index = new FilterIndex<Membership>()
  readonly #sizes = new SizeRanks()
  /** In the order in which their grace time ends. */
  readonly #lingering = new Set<Membership>()
  readonly #lingeringQuota: FairQuota
  readonly #membershipQuota: FairQuota
  /** Listeners with a filter. */
  #present = 0
  #unseen = 0
  #walks = 0
  #stopTimer: (() => void) | undefined
  #closed = false

  constructor({ grace, messages, clock = systemClock, ...bounds }: PresenceRegistryOptions) {
    this.#grace = grace
    this.#messages = messages
    this.#clock = clock
    this.#accountOf = bounds.accountOf ?? ((user, address) => user ?? address)
    this.#lingeringQuota = new FairQuota(bounds.maxLingering ?? 50_000)
    this.#membershipQuota = new FairQuota(bounds.maxMemberships ?? 500_000)
  }

  /** Listeners, with those in their grace time. */
  get size(): number {
    return this.#present
  }

  /** Filters that were not counted because the quota was exhausted. */
  get unseen(): number {
    return this.#unseen
  }

  enter({ device, user, address = '', transport, topics }: Listener): PresenceHandle {
    // A user name has no line feed.
    const key = user === undefined ? device : `${user}\n${device}`
    const members = this.#membersLike({ user, transport })
    let member = members.get(key)
    if (!member) {
      const memberships = new SmallMap<string, Membership>()
      const account = this.#accountOf(user, address)
      member = { key, device, user, account, transport, memberships, connections: 0, since: 0, lastSeen: 0, walk: 0 }
      members.set(key, member)
    }
    member.connections++
    const connection = new PresenceRegistry.#Connection(this, member)
    connection.seen()
    connection.add(topics)
    return connection
  }

  /** Adds a filter; `undefined` if the quota is exhausted. */
  #join(member: Member, filter: string): Membership | undefined {
    let membership = member.memberships.get(filter)
    if (membership) {
      if (membership.connections === 0) this.#stopLingering(membership)
      membership.connections++
      return membership
    }
    if (this.#membershipQuota.exceededBy(member.account, 1)) {
      this.#unseen++
      return undefined
    }
    this.#membershipQuota.take(member.account, 1)
    membership = { filter, member, connections: 1, due: 0 }
    if (member.memberships.size === 0) {
      this.#present++
      member.since = this.#clock.now()
    }
    member.memberships.set(filter, membership)
    this.#index.add(filter, membership)
    this.#sizes.change(filter, this.#index.get(filter)?.size ?? 0, 1)
    this.#publish('join', membership)
    return membership
  }

  #leave(membership: Membership, grace: number): void {
    if (--membership.connections > 0) return
    const { account } = membership.member
    if (grace === 0 || this.#closed || this.#lingeringQuota.exceededBy(account, 1)) {
      this.#remove(membership)
      return
    }
    membership.due = this.#clock.monotonic() + grace
    this.#lingering.add(membership)
    this.#lingeringQuota.take(account, 1)
    this.#stopTimer ??= this.#clock.after(grace, this.#releaseDue)
  }

  #stopLingering(membership: Membership): void {
    if (this.#lingering.delete(membership)) this.#lingeringQuota.giveBack(membership.member.account, 1)
  }

  #left(member: Member, memberships: Iterable<Membership>): void {
    member.connections--
    for (const membership of memberships) this.#leave(membership, this.#grace)
    this.#deleteUnused(member)
  }

  /** Removes those whose grace time is over. */
  readonly #releaseDue = (): void => {
    this.#stopTimer = undefined
    const now = this.#clock.monotonic()
    let left = maxReleases
    for (const membership of this.#lingering) {
      const wait = membership.due - now
      if (wait > 0 || left === 0) {
        this.#stopTimer = this.#clock.after(Math.max(0, wait), this.#releaseDue)
        return
      }
      left--
      this.#release(membership)
    }
  }

  #release(membership: Membership): void {
    this.#stopLingering(membership)
    this.#remove(membership)
    this.#deleteUnused(membership.member)
  }

  #remove(membership: Membership): void {
    const { member, filter } = membership
    member.memberships.delete(filter)
    this.#membershipQuota.giveBack(member.account, 1)
    if (member.memberships.size === 0) this.#present--
    this.#index.remove(filter, membership)
    this.#sizes.change(filter, this.#index.get(filter)?.size ?? 0, -1)
    this.#publish('leave', membership)
  }

  #membersLike({ user, transport }: Pick<Member, 'user' | 'transport'>): Map<string, Member> {
    return (user === undefined ? this.#anonymous : this.#users)[transport]
  }

  #deleteUnused(member: Member): void {
    if (member.connections === 0 && member.memberships.size === 0) this.#membersLike(member).delete(member.key)
  }

  #publish(event: 'join' | 'leave', { filter, member: { device, user, transport, account } }: Membership): void {
    if (!this.#messages || this.#closed) return
    const count = this.#index.get(filter)?.size ?? 0
    this.#messages.publish({ event, device, user, transport, filter, time: this.#clock.now(), count, account })
  }

  at(topic: string, limit: number): { readonly count: number; readonly listeners: readonly PresentListener[] } {
    const groups = this.#groupsAt(topic)
    const matching = new Set(groups.map(({ filter }) => filter))
    const listeners: PresentListener[] = []
    const count = this.#walk(groups, limit, member => {
      const { device, user, transport, connections, since, lastSeen, memberships } = member
      const topics = intersection(memberships, matching)
      listeners.push({ device, user, transport, topics, connections, since, lastSeen })
    })
    return { count, listeners }
  }

  devicesAt(topic: string, limit: number): readonly string[] {
    const devices = new Set<string>()
    for (const group of this.#index.match(topic)) {
      for (const { member } of group) {
        if (devices.size >= limit) return [...devices]
        devices.add(member.device)
      }
    }
    return [...devices]
  }

  /** The listeners of each filter that matches a topic name, or of exactly this filter. */
  #groupsAt(topic: string): FilterValues<Membership>[] {
    if (!isFilter(topic)) return this.#index.match(topic)
    const group = this.#index.get(topic)
    return group ? [group] : []
  }

  /** Visits each listener of `groups` once, up to `limit`. @returns the number of all */
  #walk(groups: readonly FilterValues<Membership>[], limit: number, visit: (member: Member) => void): number {
    const walk = ++this.#walks
    const [only] = groups
    let count = 0
    for (const group of groups) {
      for (const { member } of group) {
        if (member.walk === walk) continue
        member.walk = walk
        if (count < limit) visit(member)
        count++
        // A listener is once in a group.
        if (count >= limit && groups.length === 1) return only?.size ?? count
      }
    }
    return count
  }

  counts(limit: number): { readonly count: number; readonly topics: ReadonlyMap<string, number> } {
    const topics = new Map<string, number>()
    for (const [size, filter] of this.#sizes.largest()) {
      if (topics.size >= limit) break
      topics.set(filter, size)
    }
    return { count: this.#present, topics }
  }

  /** Drops the grace times and publishes nothing any more. */
  close(): void {
    this.#closed = true
    this.#stopTimer?.()
    this.#stopTimer = undefined
    this.#lingering.clear()
  }
}

function byTransport<T>(): Readonly<Record<ListenerTransport, Map<string, T>>> {
  return { sse: new Map(), poll: new Map(), socket: new Map(), mqtt: new Map() }
}

/** The filters in both; costs as much as the smaller one is large. */
function intersection(memberships: SmallMap<string, Membership>, filters: ReadonlySet<string>): string[] {
  return memberships.size < filters.size
    ? [...memberships.keys()].filter(filter => filters.has(filter))
    : [...filters].filter(filter => memberships.has(filter))
}

function isFilter(topic: string): boolean {
  return topic.includes('+') || topic.includes('#')
}
