import { FilterIndex } from '../../topics/filter-index.js'
import { parseShared } from './shared-filter.js'
import type { StoredSubscription } from './storage-backend.js'

/** A connection in a group. */
export interface SharedReceiver {
  readonly client: { readonly id: string; readonly closed: boolean }
}

/** The shared subscriptions of sessions (`SharedSubscriptions`). */
export interface SessionShares {
  stored(clientId: string, subscription: StoredSubscription): void
  ended(clientId: string, topic: string): void
  prepare(topic: string): readonly Pick<Member<unknown>, 'clientId' | 'subscription' | 'hasSession'>[]
}

/** One client in a group: connected, or with a session, or both. */
export interface Member<R> {
  readonly clientId: string
  subscription: StoredSubscription
  receiver: R | undefined
  /** Whether its session has the subscription. */
  hasSession: boolean
}

interface Group<R> {
  readonly filter: string
  readonly byId: Map<string, Member<R>>
  /** The same members, in order. */
  readonly members: Member<R>[]
  next: number
}

/** Members that are asked in one go for a message: more would take long. */
const maxAsked = 64

/**
 * Shared subscriptions (MQTT 5 §4.8.2): each message that matches a group's filter goes to one of its members, in turn: to a connected one that
 * takes it now if there is one, else to any connected one, else into the queue of a session.
 */
export class SharedSubscriptions<R extends SharedReceiver> implements SessionShares {
  readonly #index = new FilterIndex<Group<R>>()
  readonly #groups = new Map<string, Group<R>>()
  readonly #isReady: (receiver: R) => boolean
  /** Members for the message that is being queued, which is delivered to the same ones. */
  #prepared: { readonly topic: string; readonly members: readonly Member<R>[] } | undefined

  /** @param isReady whether a client takes a message now */
  constructor(isReady: (receiver: R) => boolean = () => true) {
    this.#isReady = isReady
  }

  /** Adds the subscription of a connection, or changes its options. */
  connected(receiver: R, subscription: StoredSubscription): void {
    this.#memberOf(receiver.client.id, subscription).receiver = receiver
  }

  /** Adds the subscription of a session, or changes its options. */
  stored(clientId: string, subscription: StoredSubscription): void {
    this.#memberOf(clientId, subscription).hasSession = true
  }

  #memberOf(clientId: string, subscription: StoredSubscription): Member<R> {
    const { topic } = subscription
    let group = this.#groups.get(topic)
    if (!group) {
      group = { filter: parseShared(topic)?.filter ?? topic, byId: new Map(), members: [], next: 0 }
      this.#groups.set(topic, group)
      this.#index.add(group.filter, group)
    }
    let member = group.byId.get(clientId)
    if (!member) {
      member = { clientId, subscription, receiver: undefined, hasSession: false }
      group.byId.set(clientId, member)
      group.members.push(member)
    }
    member.subscription = subscription
    return member
  }

  /** Removes the subscription of a connection, unless another connection with its client id has it now. */
  disconnected(receiver: R, topic: string): void {
    const member = this.#groups.get(topic)?.byId.get(receiver.client.id)
    if (member?.receiver !== receiver) return
    member.receiver = undefined
    if (!member.hasSession) this.#remove(topic, member)
  }

  /** Removes the subscription of a session. */
  ended(clientId: string, topic: string): void {
    const member = this.#groups.get(topic)?.byId.get(clientId)
    if (!member) return
    member.hasSession = false
    if (!member.receiver) this.#remove(topic, member)
  }

  #remove(topic: string, member: Member<R>): void {
    const group = this.#groups.get(topic)
    if (!group?.byId.delete(member.clientId)) return
    const position = group.members.indexOf(member)
    group.members.splice(position, 1)
    if (position < group.next) group.next--
    if (group.members.length > 0) return
    this.#groups.delete(topic)
    this.#index.remove(group.filter, group)
  }

  /** Chooses the members that get a message of QoS 1 or 2, one of each matching group; the next `take` returns them, too. */
  prepare(topic: string): readonly Member<R>[] {
    const members = this.#choose(topic, true)
    this.#prepared = { topic, members }
    return members
  }

  /** The connected members that get a message, one of each matching group. */
  take(topic: string): readonly Member<R>[] {
    if (this.#groups.size === 0) return []
    const prepared = this.#prepared
    this.#prepared = undefined
    return prepared?.topic === topic ? prepared.members : this.#choose(topic, false)
  }

  #choose(topic: string, isQueued: boolean): readonly Member<R>[] {
    if (this.#groups.size === 0) return []
    const chosen: Member<R>[] = []
    for (const groups of this.#index.match(topic)) {
      groups.forEach(group => {
        const member = this.#next(group, isQueued)
        if (member) chosen.push(member)
      })
    }
    return chosen
  }

  #next(group: Group<R>, isQueued: boolean): Member<R> | undefined {
    const { members, next } = group
    let connected: number | undefined
    let stored: number | undefined
    const count = Math.min(members.length, maxAsked)
    for (let step = 0; step < count; step++) {
      const at = (next + step) % members.length
      const { receiver, hasSession, subscription } = members[at] ?? {}
      if (receiver && !receiver.client.closed) {
        if (this.#isReady(receiver)) return this.#turn(group, at)
        connected ??= at
      } else if (isQueued && hasSession && (subscription?.qos ?? 0) > 0) stored ??= at
    }
    const found = connected ?? stored
    // With more members than are asked, others are asked next time.
    if (found === undefined) group.next = (next + count) % Math.max(1, members.length)
    return found === undefined ? undefined : this.#turn(group, found)
  }

  #turn(group: Group<R>, at: number): Member<R> | undefined {
    group.next = (at + 1) % group.members.length
    return group.members[at]
  }
}
