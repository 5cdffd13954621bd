import { type Clock, systemClock } from '../base/clock.js'
import type { TimeSlicer } from '../base/time-slicer.js'
import type { LeaderMessages } from './leader-messages.js'
import type { Listener, ListenerTransport, Presence, PresenceHandle } from './presence.js'
import {
  PresenceRegistry,
  type PresenceRegistryOptions,
  type RegisteredListener,
  type ReplicaHandle,
} from './presence-registry.js'

/** This gateway's entries, which all gateways get. */
export interface SharedEntries {
  set(key: string, value: string | undefined): void
  /** The name of this gateway. */
  readonly id: string
}

export interface SharedPresenceOptions extends Omit<PresenceRegistryOptions, 'onChange' | 'onActivity'> {
  /** Gets the changes of all gateways; left out for none. */
  readonly messages?: Pick<LeaderMessages, 'add' | 'reached' | 'marked'> | undefined
  readonly slicer: TimeSlicer
}

/** Listeners whose connections and last activity are written to Redis each time, and the interval, in milliseconds. */
const [maxActive, activityInterval] = [500, 1000]

/**
 * The listeners of all gateways.
 *
 * Each gateway shares its own listeners with the others: an entry for each listener, and one for each of its filters, from its join until the end of
 * its grace time. A listener is present while it has an entry of any gateway. All gateways get the changes of entries in the same order, so they
 * have the same joins and leaves.
 */
export class SharedPresence implements Presence {
  readonly #options: SharedPresenceOptions
  readonly #clock: Clock
  readonly #own: PresenceRegistry
  readonly #all: PresenceRegistry
  /** By gateway, and number of the listener there. */
  readonly #replicas = new Map<string, Map<string, ReplicaHandle>>()
  /** Own listeners with other connections or activity than the others know. */
  readonly #active = new Set<RegisteredListener>()
  #entries: SharedEntries | undefined
  #position = 0
  #stopTimer: () => void

  constructor(options: SharedPresenceOptions) {
    this.#options = options
    const { messages, clock = systemClock, ...bounds } = options
    this.#clock = clock
    this.#own = new PresenceRegistry({
      ...bounds,
      clock,
      onChange: ({ event, filter }, listener) => {
        if (event === 'join') this.#joined(listener, filter)
        else this.#left(listener, filter)
      },
      onActivity: listener => this.#active.add(listener),
    })
    this.#all = new PresenceRegistry({
      ...{ ...bounds, clock, grace: 0, accountOf: (_, account) => account },
      ...(messages && { onChange: change => messages.add(change, this.#position) }),
    })
    this.#stopTimer = clock.after(activityInterval, this.#shareActivity)
  }

  /** Begins to share this gateway's entries. */
  attach(entries: SharedEntries): void {
    this.#entries = entries
  }

  /** Listeners of all gateways. */
  get size(): number {
    return this.#all.size
  }

  enter(listener: Listener): PresenceHandle {
    return this.#own.enter(listener)
  }

  at(topic: string, limit: number): ReturnType<Presence['at']> {
    return this.#all.at(topic, limit)
  }

  /** Including those of this gateway that the others do not know yet. */
  devicesAt(topic: string, limit: number): readonly string[] {
    return [...new Set([...this.#own.devicesAt(topic, limit), ...this.#all.devicesAt(topic, limit)])].slice(0, limit)
  }

  counts(limit: number): ReturnType<Presence['counts']> {
    return this.#all.counts(limit)
  }

  /** Own listeners stay as they are for the others. */
  close(): void {
    this.#stopTimer()
    this.#own.close()
    this.#all.close()
  }

  // This gateway's entries

  #joined(listener: RegisteredListener, filter: string): void {
    if (listener.memberships.size === 1) this.#share(listener)
    this.#entries?.set(keyOf(listener, filter), '1')
  }

  #left(listener: RegisteredListener, filter: string): void {
    this.#entries?.set(keyOf(listener, filter), undefined)
    if (listener.memberships.size > 0) return
    this.#active.delete(listener)
    this.#entries?.set(keyOf(listener), undefined)
  }

  #share(listener: RegisteredListener): void {
    this.#active.delete(listener)
    this.#entries?.set(keyOf(listener), this.#encode(listener))
  }

  readonly #shareActivity = (): void => {
    let left = maxActive
    for (const listener of this.#active) {
      if (left-- === 0) break
      if (listener.memberships.size > 0) this.#share(listener)
      else this.#active.delete(listener)
    }
    this.#stopTimer = this.#clock.after(activityInterval, this.#shareActivity)
  }

  #encode(listener: RegisteredListener): string {
    const { transport, device, user, account, lastSeen, connections } = listener
    // It may have come from another gateway.
    const since = Math.min(listener.since, this.#all.find(listener)?.since ?? listener.since)
    return JSON.stringify([transport, device, user ?? null, account, since, lastSeen, connections])
  }

  /** All entries of this gateway; listeners may come and leave meanwhile. */
  *entries(): Generator<[key: string, value: string], void, void> {
    for (const listener of this.#own.listeners()) {
      if (listener.memberships.size === 0) continue
      yield [keyOf(listener), this.#encode(listener)]
      for (const filter of listener.memberships.keys()) {
        if (listener.memberships.has(filter)) yield [keyOf(listener, filter), '1']
      }
    }
  }

  // The entries of all gateways

  onChange(gateway: string, [key, value]: readonly [key: string, value: string | undefined], position: number): void {
    this.#position = position
    const { id, filter } = parseKey(key)
    if (filter === undefined) {
      if (value === undefined) this.#remove(gateway, id)
      else this.#update(gateway, id, value)
      return
    }
    const replica = this.#replicas.get(gateway)?.get(id)
    if (!replica) return
    if (value === undefined) replica.remove([filter])
    else {
      replica.add([filter])
      // It has moved there.
      if (this.#entries && this.#entries.id !== gateway) this.#own.endGrace(replica.listener, filter)
    }
  }

  async onLeft(gateway: string, position: number): Promise<void> {
    const { slicer } = this.#options
    this.#position = position
    for (const id of this.#replicas.get(gateway)?.keys() ?? []) {
      if (slicer.isOver) await slicer.next()
      this.#remove(gateway, id)
    }
  }

  /** Adds what is new before it removes what is old, so that a listener that has moved does not leave. */
  async onLoaded(maps: ReadonlyMap<string, ReadonlyMap<string, string>>, position: number): Promise<void> {
    const { slicer } = this.#options
    this.#position = position
    const filters = new Map<ReplicaHandle, string[]>()
    for (const [gateway, map] of maps) {
      for (const [key, value] of map) {
        if (slicer.isOver) await slicer.next()
        const { id, filter } = parseKey(key)
        if (filter === undefined) filters.set(this.#update(gateway, id, value), [])
      }
      for (const key of map.keys()) {
        if (slicer.isOver) await slicer.next()
        const { id, filter } = parseKey(key)
        const replica = this.#replicas.get(gateway)?.get(id)
        if (!replica || filter === undefined) continue
        replica.add([filter])
        filters.get(replica)?.push(filter)
      }
    }
    for (const gateway of maps.keys()) {
      for (const [id, replica] of this.#replicas.get(gateway) ?? []) {
        if (slicer.isOver) await slicer.next()
        const present = filters.get(replica)
        if (present) replica.change(present)
        else this.#remove(gateway, id)
      }
    }
  }

  onMark(mark: string): void {
    this.#options.messages?.marked(mark)
  }

  onReached(position: number): void {
    this.#options.messages?.reached(position)
  }

  #update(gateway: string, id: string, value: string): ReplicaHandle {
    const [transport, device, user, account, since, lastSeen, connections] = JSON.parse(value) as EncodedListener
    const state = { connections, since, lastSeen }
    let replicas = this.#replicas.get(gateway)
    if (!replicas) {
      replicas = new Map()
      this.#replicas.set(gateway, replicas)
    }
    let replica = replicas.get(id)
    if (replica) replica.update(state)
    else {
      replica = this.#all.enterReplica({ transport, device, user: user ?? undefined, address: account }, state)
      replicas.set(id, replica)
    }
    return replica
  }

  #remove(gateway: string, id: string): void {
    const replicas = this.#replicas.get(gateway)
    replicas?.get(id)?.leave()
    replicas?.delete(id)
    if (replicas?.size === 0) this.#replicas.delete(gateway)
  }
}

type EncodedListener = [
  transport: ListenerTransport,
  device: string,
  user: string | null,
  account: string,
  since: number,
  lastSeen: number,
  connections: number,
]

/** The key of the entry of a listener, or of one of its filters. */
function keyOf({ id }: RegisteredListener, filter?: string): string {
  return filter === undefined ? id.toString(36) : `${id.toString(36)} ${filter}`
}

function parseKey(key: string): { readonly id: string; readonly filter?: string } {
  const end = key.indexOf(' ')
  return end === -1 ? { id: key } : { id: key.slice(0, end), filter: key.slice(end + 1) }
}
