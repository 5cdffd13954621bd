import { type Clock, systemClock } from '../base/clock.js'
import { FairQuota } from '../base/fair-quota.js'
import { SizeRanks } from '../base/size-ranks.js'
import { SmallMap } from '../base/small-map.js'
import { FilterIndex } from '../topics/filter-index.js'
import type { FilterValues } from '../topics/filter-node.js'
import type { Listener, ListenerTransport, Presence, PresenceHandle, PresentListener } from './presence.js'
import type { PresenceMessages } from './presence-messages.js'

export interface PresenceRegistryOptions {
  /** For how long somebody who left is still there, in milliseconds; 0 for not at all. */
  readonly grace: number
  /** Tells who comes and goes; left out for nobody. */
  readonly messages?: Pick<PresenceMessages, 'tell'> | undefined
  readonly clock?: Clock
  /** The key by which listeners share both bounds: their user, or else their network. Default: user or address. */
  readonly accountOf?: (user: string | undefined, address: string) => string
  /**
   * Listeners in their grace time, each counted for each of its filters, shared as `FairQuota` does; beyond, those who leave are gone
   * at once: who polls under a new name each time would otherwise fill the memory. Default: 50,000.
   */
  readonly maxLingering?: number
  /**
   * Listeners in all, each counted for each of its filters, shared in the same way; beyond, nobody is told of further ones. A client may have a
   * thousand filters of its own, and each takes about 1 KB here. Default: 500,000.
   */
  readonly maxInterests?: number
}

/** A listener. */
interface Party {
  readonly key: string
  readonly device: string
  readonly user: string | undefined
  /** The quota key of its first connection. */
  readonly account: string
  readonly transport: ListenerTransport
  /** By filter. */
  readonly interests: SmallMap<string, Interest>
  connections: number
  since: number
  lastSeen: number
  /** The last walk that came across it. */
  walk: number
}

/** A listener's listening with one filter. */
interface Interest {
  readonly filter: string
  readonly party: Party
  /** How many of its connections do. */
  connections: number
  /** When its grace time is over (monotonic), where that has begun. */
  due: number
}

/** What an attendance needs of the registry. */
interface AttendanceHost {
  time(): number
  /** `undefined` where there is no room for it. */
  join(party: Party, filter: string): Interest | undefined
  /** At once. */
  part(interest: Interest): void
  /** After the grace time. */
  left(party: Party, interests: Iterable<Interest>): void
}

/** One connection of a listener. */
class Attending implements PresenceHandle {
  readonly #host: AttendanceHost
  readonly #party: Party
  readonly #interests = new SmallMap<string, Interest>()
  #left = false

  constructor(host: AttendanceHost, party: Party) {
    this.#host = host
    this.#party = party
  }

  seen(): void {
    this.#party.lastSeen = this.#host.time()
  }

  add(topics: Iterable<string>): void {
    for (const filter of topics) {
      if (this.#left || this.#interests.has(filter)) continue
      const interest = this.#host.join(this.#party, filter)
      if (interest) this.#interests.set(filter, interest)
    }
  }

  remove(topics: Iterable<string>): void {
    for (const filter of topics) {
      const interest = this.#interests.get(filter)
      if (!interest) continue
      this.#interests.delete(filter)
      this.#host.part(interest)
    }
  }

  change(topics: readonly string[]): void {
    const wanted = new Set(topics)
    this.add(wanted)
    this.remove([...this.#interests.keys()].filter(filter => !wanted.has(filter)))
  }

  leave(): void {
    if (this.#left) return
    this.#left = true
    this.seen()
    this.#host.left(this.#party, this.#interests.values())
    this.#interests.clear()
  }
}

/** So many leave in one turn of the event loop when their grace time is over: some 2 ms. */
const portion = 500

/**
 * Who listens, by filter. What one connection changes costs as much as it has filters; grace times are all equally long, so
 * that one queue and one timer serve everybody. A listener takes some 450 bytes with one filter that others have too,
 * and three times that with one of its own.
 */
export class PresenceRegistry implements Presence {
  readonly #grace: number
  readonly #messages: Pick<PresenceMessages, 'tell'> | undefined
  readonly #clock: Clock
  readonly #accountOf: (user: string | undefined, address: string) => string
  readonly #host: AttendanceHost
  readonly #users = byTransport<Party>()
  /** Those whose user is not known, by device alone: most, and their keys are no further strings then. */
  readonly #strangers = byTransport<Party>()
  readonly #index = new FilterIndex<Interest>()
  readonly #sizes = new SizeRanks()
  /** In the order in which their grace time is over. */
  readonly #lingering = new Set<Interest>()
  readonly #lingeringQuota: FairQuota
  readonly #interestQuota: FairQuota
  /** Listeners that listen to anything. */
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
    this.#interestQuota = new FairQuota(bounds.maxInterests ?? 500_000)
    this.#host = {
      time: () => clock.now(),
      join: (party, filter) => this.#join(party, filter),
      part: interest => this.#part(interest, 0),
      left: (party, interests) => this.#left(party, interests),
    }
  }

  /** Listeners that listen to anything, those in their grace time included. */
  get size(): number {
    return this.#present
  }

  /** How often somebody came with a filter for which there was no room. */
  get unseen(): number {
    return this.#unseen
  }

  enter({ device, user, address = '', transport, topics }: Listener): PresenceHandle {
    // No user's name holds a line feed.
    const key = user === undefined ? device : `${user}\n${device}`
    const parties = this.#partiesLike({ user, transport })
    let party = parties.get(key)
    if (!party) {
      const interests = new SmallMap<string, Interest>()
      const account = this.#accountOf(user, address)
      party = { key, device, user, account, transport, interests, connections: 0, since: 0, lastSeen: 0, walk: 0 }
      parties.set(key, party)
    }
    party.connections++
    const attending = new Attending(this.#host, party)
    attending.seen()
    attending.add(topics)
    return attending
  }

  #join(party: Party, filter: string): Interest | undefined {
    let interest = party.interests.get(filter)
    if (interest) {
      if (interest.connections === 0) this.#lingersNoMore(interest)
      interest.connections++
      return interest
    }
    if (this.#interestQuota.exceededBy(party.account, 1)) {
      this.#unseen++
      return undefined
    }
    this.#interestQuota.take(party.account, 1)
    interest = { filter, party, connections: 1, due: 0 }
    if (party.interests.size === 0) {
      this.#present++
      party.since = this.#clock.now()
    }
    party.interests.set(filter, interest)
    this.#index.add(filter, interest)
    this.#sizes.change(filter, this.#index.get(filter)?.size ?? 0, 1)
    this.#tell('join', interest)
    return interest
  }

  #part(interest: Interest, grace: number): void {
    if (--interest.connections > 0) return
    const { account } = interest.party
    if (grace === 0 || this.#closed || this.#lingeringQuota.exceededBy(account, 1)) {
      this.#remove(interest)
      return
    }
    interest.due = this.#clock.monotonic() + grace
    this.#lingering.add(interest)
    this.#lingeringQuota.take(account, 1)
    this.#stopTimer ??= this.#clock.after(grace, this.#releaseDue)
  }

  #lingersNoMore(interest: Interest): void {
    if (this.#lingering.delete(interest)) this.#lingeringQuota.giveBack(interest.party.account, 1)
  }

  #left(party: Party, interests: Iterable<Interest>): void {
    party.connections--
    for (const interest of interests) this.#part(interest, this.#grace)
    this.#forget(party)
  }

  /** Those whose grace time is over are gone. */
  readonly #releaseDue = (): void => {
    this.#stopTimer = undefined
    const now = this.#clock.monotonic()
    let left = portion
    for (const interest of this.#lingering) {
      const wait = interest.due - now
      if (wait > 0 || left === 0) {
        this.#stopTimer = this.#clock.after(Math.max(0, wait), this.#releaseDue)
        return
      }
      left--
      this.#release(interest)
    }
  }

  #release(interest: Interest): void {
    this.#lingersNoMore(interest)
    this.#remove(interest)
    this.#forget(interest.party)
  }

  #remove(interest: Interest): void {
    const { party, filter } = interest
    party.interests.delete(filter)
    this.#interestQuota.giveBack(party.account, 1)
    if (party.interests.size === 0) this.#present--
    this.#index.remove(filter, interest)
    this.#sizes.change(filter, this.#index.get(filter)?.size ?? 0, -1)
    this.#tell('leave', interest)
  }

  #partiesLike({ user, transport }: Pick<Party, 'user' | 'transport'>): Map<string, Party> {
    return (user === undefined ? this.#strangers : this.#users)[transport]
  }

  #forget(party: Party): void {
    if (party.connections === 0 && party.interests.size === 0) this.#partiesLike(party).delete(party.key)
  }

  #tell(event: 'join' | 'leave', { filter, party: { device, user, transport, account } }: Interest): void {
    if (!this.#messages || this.#closed) return
    const count = this.#index.get(filter)?.size ?? 0
    this.#messages.tell({ event, device, user, transport, filter, time: this.#clock.now(), count, account })
  }

  at(topic: string, limit: number): { readonly count: number; readonly listeners: readonly PresentListener[] } {
    const groups = this.#groupsAt(topic)
    const matching = new Set(groups.map(({ filter }) => filter))
    const listeners: PresentListener[] = []
    const count = this.#walk(groups, limit, party => {
      const { device, user, transport, connections, since, lastSeen, interests } = party
      const topics = common(interests, matching)
      listeners.push({ device, user, transport, topics, connections, since, lastSeen })
    })
    return { count, listeners }
  }

  devicesAt(topic: string, limit: number): readonly string[] {
    const devices = new Set<string>()
    for (const group of this.#index.match(topic)) {
      for (const { party } of group) {
        if (devices.size >= limit) return [...devices]
        devices.add(party.device)
      }
    }
    return [...devices]
  }

  /** The listeners of each filter that matches a topic name, or of the one filter that this is. */
  #groupsAt(topic: string): FilterValues<Interest>[] {
    if (!isFilter(topic)) return this.#index.match(topic)
    const group = this.#index.get(topic)
    return group ? [group] : []
  }

  /** Visits each listener of `groups` once, up to `limit` of them. @returns how many there are */
  #walk(groups: readonly FilterValues<Interest>[], limit: number, visit: (party: Party) => void): number {
    const walk = ++this.#walks
    const [only] = groups
    let count = 0
    for (const group of groups) {
      for (const { party } of group) {
        if (party.walk === walk) continue
        party.walk = walk
        if (count < limit) visit(party)
        count++
        // Each listener is once in a group.
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

  /** Forgets the grace times, and tells nothing any more. */
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

/** What both have. It costs as much as the smaller one is large: either may have very many. */
function common(interests: SmallMap<string, Interest>, filters: ReadonlySet<string>): string[] {
  return interests.size < filters.size
    ? [...interests.keys()].filter(filter => filters.has(filter))
    : [...filters].filter(filter => interests.has(filter))
}

function isFilter(topic: string): boolean {
  return topic.includes('+') || topic.includes('#')
}
