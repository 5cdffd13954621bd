import type { AedesPublishPacket, Client } from 'aedes'
import { FilterIndex } from '../../topics/filter-index.js'
import type { Receiver } from './delivery.js'
import type { LiveSubscriptions, Recipient } from './live-subscriptions.js'

type Done = (error?: Error) => void

/** A listener of Aedes itself. */
type Listener = (packet: AedesPublishPacket, done: () => void) => void

/** A publisher waits one to two of these for subscribers, in milliseconds, and longer for congested ones. */
const waitInterval = 50

/** Time limit of one check for congested subscribers, in milliseconds; unchecked publishers proceed. */
const checkTime = 2

export interface DispatcherHooks {
  /** Called before a message is delivered. */
  readonly onEmit: (packet: AedesPublishPacket) => void
  /** Called synchronously after it was passed to each subscriber, with their number. */
  readonly onEmitted: (subscribers: number) => void
  /** Delivers a message to one subscriber; returns whether it is written and its client has room, else calls `done` later. */
  readonly deliver: (subscriber: Recipient<Receiver>, packet: AedesPublishPacket, done: () => void) => boolean
  /** The publisher of the message; `undefined` if it does not wait longer. */
  readonly publisher: () => Client | undefined
  readonly isAnyCongested: () => boolean
  /** Whether no publisher waits for a subscriber. */
  readonly isStalled: (subscriber: Client) => boolean
  /** Whether a publisher waits longer for a subscriber. */
  readonly isWaitedFor: (subscriber: Client, publisher: Client) => boolean
  /** Called when a publisher waits longer. */
  readonly onWait: (publisher: Client) => void
}

interface Emission {
  readonly clients: readonly Client[]
  readonly publisher: Client | undefined
  readonly done: Done
}

/**
 * Delivers each message to its subscribers, as Aedes' `mq` in place of mqemitter.
 *
 * A publisher proceeds when its message is written to all subscribers, which slows a flood to what they read: for up to 100 ms, and while one of
 * them is congested and reads (`Congestion`). mqemitter would wait for the slowest, with at most 100 messages in the whole broker.
 */
export class Dispatcher {
  readonly #subscriptions: LiveSubscriptions<Receiver>
  readonly #hooks: DispatcherHooks
  readonly #listeners = new FilterIndex<Listener>()
  #closed = false
  #fresh = new Set<Emission>()
  #stale = new Set<Emission>()
  #timer: NodeJS.Timeout | undefined

  /** @param subscriptions finds the subscribers of a message */
  constructor(subscriptions: LiveSubscriptions<Receiver>, hooks: DispatcherHooks) {
    this.#subscriptions = subscriptions
    this.#hooks = hooks
  }

  /** Adds a listener of Aedes itself, which listens for announcements of other nodes. */
  on(filter: string, listener: Listener, done?: () => void): this {
    this.#listeners.add(filter, listener)
    if (done) setImmediate(done)
    return this
  }

  removeListener(filter: string, listener: Listener, done?: () => void): this {
    this.#listeners.remove(filter, listener)
    if (done) setImmediate(done)
    return this
  }

  emit(packet: AedesPublishPacket & { readonly clientId?: string }, done: Done = () => {}): this {
    if (this.#closed) {
      done(new Error('The broker is closed'))
      return this
    }
    this.#hooks.onEmit(packet)
    const { topic, clientId } = packet
    if (topic.startsWith('$SYS/')) this.#announce(packet)
    const subscribers = this.#subscriptions.match(topic, clientId)
    const waiting: Client[] = []
    let isEmitting = true
    let emission: Emission | undefined
    let left = 0
    const delivered = (): void => {
      left--
      if (isEmitting || left > 0 || !emission) return
      if (this.#fresh.delete(emission) || this.#stale.delete(emission)) done()
    }
    const isAnyCongested = this.#hooks.isAnyCongested()
    for (const subscriber of subscribers) {
      const { client } = subscriber.receiver
      const isAwaited = !(isAnyCongested && this.#hooks.isStalled(client))
      if (this.#hooks.deliver(subscriber, packet, isAwaited ? delivered : ignore) || !isAwaited) continue
      left++
      waiting.push(client)
    }
    isEmitting = false
    if (left > 0) {
      emission = { clients: waiting, publisher: this.#hooks.publisher(), done }
      this.#fresh.add(emission)
      this.#timer ??= setInterval(() => this.#checkWaiting(), waitInterval).unref()
    }
    // Asynchronously: Aedes would otherwise parse further packets inside the parser's call for this one.
    else setImmediate(done)
    this.#hooks.onEmitted(subscribers.length)
    return this
  }

  #announce(packet: AedesPublishPacket): void {
    const announce = (listener: Listener): void => listener(packet, ignore)
    for (const listeners of this.#listeners.match(packet.topic)) listeners.forEach(announce)
  }

  close(done: () => void): void {
    this.#closed = true
    this.#checkWaiting()
    this.#checkWaiting()
    setImmediate(done)
  }

  /** Lets publishers proceed that have waited long enough. */
  #checkWaiting(): void {
    const late = this.#stale
    this.#stale = this.#fresh
    this.#fresh = new Set()
    const end = performance.now() + checkTime
    const mayWait = !this.#closed && this.#hooks.isAnyCongested()
    for (const emission of late) {
      if (mayWait && this.#waits(emission, end)) this.#stale.add(emission)
      else emission.done()
    }
    if (this.#fresh.size > 0 || this.#stale.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #waits({ clients, publisher }: Emission, end: number): boolean {
    if (!publisher) return false
    const { isWaitedFor, onWait } = this.#hooks
    for (const client of clients) {
      if (performance.now() >= end) return false
      if (!isWaitedFor(client, publisher)) continue
      onWait(publisher)
      return true
    }
    return false
  }
}

function ignore(): void {}
