import { type Clock, systemClock } from '../base/clock.js'
import { FairQuota } from '../base/fair-quota.js'
import { SizeRanks } from '../base/size-ranks.js'
import { SmallMap } from '../base/small-map.js'
import { FilterIndex } from '../topics/filter-index.js'
import type { FilterValues } from '../topics/filter-node.js'
import type { Listener, ListenerTransport, Presence, PresenceHandle, PresentListener } from './presence.js'
import type { PresenceChange } from './presence-messages.js'

export interface PresenceRegistryOptions {
  /** Milliseconds that a listener stays present after it has left; 0 for none. */
  readonly grace: number
  /** Called with each join and leave; left out for none. */
  readonly onChange?: ((change: PresenceChange, listener: RegisteredListener) => void) | undefined
  /** Called when a listener's connections or the time of its last activity have changed. */
  readonly onActivity?: ((listener: RegisteredListener) => void) | undefined
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
   * 1 KB here. A filter counts once more for each 256 characters. Default: 500,000.
   */
  readonly maxMemberships?: number
}

/** A listener of a registry. */
export interface RegisteredListener extends Pick<PresentListener, 'device' | 'transport' | 'connections' | 'lastSeen'> {
  /** A number of its own in the registry. */
  readonly id: number
  readonly user: string | undefined
  /** The quota key of its first connection. */
  readonly account: string
  /** By filter. */
  readonly memberships: Pick<SmallMap<string, unknown>, 'size' | 'has' | 'keys'>
  readonly since: number
}

/** What a gateway tells of the connections of one of its listeners. */
export type ReplicaState = Pick<PresentListener, 'connections' | 'since' | 'lastSeen'>

/** One handle for all connections of a listener at one gateway. */
export interface ReplicaHandle extends PresenceHandle {
  readonly listener: RegisteredListener
  update(state: ReplicaState): void
}

interface Member extends RegisteredListener {
  readonly key: string
  readonly memberships: SmallMap<string, Membership>
  /** Open handles. */
  handles: number
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
  static readonly #Connection = class implements ReplicaHandle {
    readonly #registry: PresenceRegistry
    readonly #member: Member
    readonly #memberships = new SmallMap<string, Membership>()
    #connections = 1
    #since: number | undefined
    #hasLeft = false

    constructor(registry: PresenceRegistry, member: Member) {
      this.#registry = registry
      this.#member = member
    }

    seen(): void {
      this.#member.lastSeen = this.#registry.#clock.now()
      this.#registry.#onActivity?.(this.#member)
    }

    get listener(): RegisteredListener {
      return this.#member
    }

    update({ connections, since, lastSeen }: ReplicaState): void {
      const member = this.#member
      member.connections += connections - this.#connections
      this.#connections = connections
      this.#since = since
      if (member.memberships.size > 0) member.since = Math.min(member.since, since)
      member.lastSeen = Math.max(member.lastSeen, lastSeen)
    }

    add(topics: Iterable<string>): void {
      for (const filter of topics) {
        if (this.#hasLeft || this.#memberships.has(filter)) continue
        const membership = this.#registry.#join(this.#member, filter, this.#since)
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
      this.#member.connections -= this.#connections
      if (this.#since === undefined) this.seen()
      this.#registry.#left(this.#member, this.#memberships.values())
      this.#memberships.clear()
    }
  }

  readonly #grace: number
  readonly #onChange: PresenceRegistryOptions['onChange']
  readonly #onActivity: PresenceRegistryOptions['onActivity']
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
  #lastId = 0
  #stopTimer: (() => void) | undefined
  #closed = false

  constructor({ grace, onChange, onActivity, clock = systemClock, ...bounds }: PresenceRegistryOptions) {
    this.#grace = grace
    this.#onChange = onChange
    this.#onActivity = onActivity
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

  enter(listener: Listener): PresenceHandle {
    const connection = this.#connect(listener)
    connection.seen()
    connection.add(listener.topics)
    return connection
  }

  /** Adds a listener of a gateway, yet without filters. */
  enterReplica(listener: Omit<Listener, 'topics'>, state: ReplicaState): ReplicaHandle {
    const replica = this.#connect(listener)
    replica.update(state)
    return replica
  }

  #connect({ device, user, address = '', transport }: Omit<Listener, 'topics'>): ReplicaHandle {
    const key = keyOf({ user, device })
    const members = this.#membersLike({ user, transport })
    let member = members.get(key)
    if (!member) {
      const memberships = new SmallMap<string, Membership>()
      const account = this.#accountOf(user, address)
      const id = ++this.#lastId
      const none = { handles: 0, connections: 0, since: 0, lastSeen: 0, walk: 0 }
      member = { id, key, device, user, account, transport, memberships, ...none }
      members.set(key, member)
    }
    member.handles++
    member.connections++
    return new PresenceRegistry.#Connection(this, member)
  }

  /** Adds a filter; `undefined` if the quota is exhausted. */
  #join(member: Member, filter: string, since = this.#clock.now()): Membership | undefined {
    let membership = member.memberships.get(filter)
    if (membership) {
      if (membership.connections === 0) this.#stopLingering(membership)
      membership.connections++
      return membership
    }
    const units = unitsOf(filter)
    if (this.#membershipQuota.exceededBy(member.account, units)) {
      this.#unseen++
      return undefined
    }
    this.#membershipQuota.take(member.account, units)
    membership = { filter, member, connections: 1, due: 0 }
    if (member.memberships.size === 0) {
      this.#present++
      member.since = since
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
    member.handles--
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
    this.#membershipQuota.giveBack(member.account, unitsOf(filter))
    if (member.memberships.size === 0) this.#present--
    this.#index.remove(filter, membership)
    this.#sizes.change(filter, this.#index.get(filter)?.size ?? 0, -1)
    this.#publish('leave', membership)
  }

  #membersLike({ user, transport }: Pick<Member, 'user' | 'transport'>): Map<string, Member> {
    return (user === undefined ? this.#anonymous : this.#users)[transport]
  }

  #deleteUnused(member: Member): void {
    if (member.handles === 0 && member.memberships.size === 0) this.#membersLike(member).delete(member.key)
  }

  #publish(event: 'join' | 'leave', { filter, member }: Membership): void {
    if (!this.#onChange || this.#closed) return
    const { device, user, transport, account } = member
    const count = this.#index.get(filter)?.size ?? 0
    this.#onChange({ event, device, user, transport, filter, time: this.#clock.now(), count, account }, member)
  }

  /** All listeners; some may come and leave meanwhile. */
  *listeners(): Generator<RegisteredListener, void, void> {
    for (const users of [this.#users, this.#anonymous]) {
      for (const members of Object.values(users)) yield* members.values()
    }
  }

  /** The same listener, if it is present here. */
  find(listener: Pick<RegisteredListener, 'device' | 'user' | 'transport'>): RegisteredListener | undefined {
    const member = this.#membersLike(listener).get(keyOf(listener))
    return member?.memberships.size === 0 ? undefined : member
  }

  /** Ends the grace time of a filter, if it has begun. */
  endGrace(listener: Pick<RegisteredListener, 'device' | 'user' | 'transport'>, filter: string): void {
    const membership = this.#membersLike(listener).get(keyOf(listener))?.memberships.get(filter)
    if (membership && this.#lingering.has(membership)) this.#release(membership)
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

/** The key of a listener among those of its transport with, or without, a user. A user name has no line feed. */
function keyOf({ user, device }: Pick<RegisteredListener, 'user' | 'device'>): string {
  return user === undefined ? device : `${user}\n${device}`
}

/** What a filter counts in the quota, so that its bytes are bounded, too. */
function unitsOf(filter: string): number {
  return 1 + Math.floor(filter.length / 256)
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
