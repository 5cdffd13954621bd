import type { AedesPublishPacket, Client } from 'aedes'
import type { Deliver, LiveSubscriptions, Subscriber } from './live-subscriptions.js'

type Done = (error?: Error) => void

/** A publisher waits one to two of these for subscribers, in milliseconds, and longer for congested ones. */
const waitInterval = 50

/** Time limit of one check for congested subscribers, in milliseconds; unchecked publishers proceed. */
const checkTime = 2

export interface DispatcherHooks {
  /** Called before a message is delivered. */
  readonly onEmit: (packet: AedesPublishPacket) => void
  /** Called synchronously after it was passed to each subscriber. */
  readonly onEmitted: () => void
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
  readonly subscribers: readonly Subscriber[]
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
  readonly #subscriptions: LiveSubscriptions
  readonly #hooks: DispatcherHooks
  #closed = false
  #fresh = new Set<Emission>()
  #stale = new Set<Emission>()
  #timer: NodeJS.Timeout | undefined

  /** @param subscriptions finds the subscribers of a message */
  constructor(subscriptions: LiveSubscriptions, hooks: DispatcherHooks) {
    this.#subscriptions = subscriptions
    this.#hooks = hooks
  }

  on(filter: string, deliver: Deliver, done?: () => void): this {
    this.#subscriptions.listen(filter, deliver)
    if (done) setImmediate(done)
    return this
  }

  removeListener(filter: string, deliver: Deliver, done?: () => void): this {
    this.#subscriptions.unlisten(filter, deliver)
    if (done) setImmediate(done)
    return this
  }

  emit(packet: AedesPublishPacket, done: Done = () => {}): this {
    if (this.#closed) {
      done(new Error('The broker is closed'))
      return this
    }
    this.#hooks.onEmit(packet)
    const subscribers = this.#subscriptions.match(packet.topic)
    let left = subscribers.length
    if (left === 0) {
      // Asynchronously: Aedes would otherwise parse further packets inside the parser's call for this one.
      setImmediate(done)
      this.#hooks.onEmitted()
      return this
    }
    const emission = { subscribers, publisher: this.#hooks.publisher(), done }
    this.#fresh.add(emission)
    this.#timer ??= setInterval(() => this.#checkWaiting(), waitInterval).unref()
    let isEmitting = true
    const delivered = (): void => {
      left--
      if (left > 0 || !(this.#fresh.delete(emission) || this.#stale.delete(emission))) return
      // As above.
      if (isEmitting) setImmediate(done)
      else done()
    }
    const isAnyCongested = this.#hooks.isAnyCongested()
    for (const { deliver, client } of subscribers) {
      const isAwaited = deliver !== undefined && !(isAnyCongested && client && this.#hooks.isStalled(client))
      deliver?.(packet, isAwaited ? delivered : ignore)
      if (!isAwaited) delivered()
    }
    isEmitting = false
    this.#hooks.onEmitted()
    return this
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

  #waits({ subscribers, publisher }: Emission, end: number): boolean {
    if (!publisher) return false
    const { isWaitedFor, onWait } = this.#hooks
    for (const { client } of subscribers) {
      if (performance.now() >= end) return false
      if (!client || !isWaitedFor(client, publisher)) continue
      onWait(publisher)
      return true
    }
    return false
  }
}

function ignore(): void {}
