import type { AedesPublishPacket, Client } from 'aedes'
import type { Deliver, LiveSubscriptions, Subscriber } from './live-subscriptions.js'

type Done = (error?: Error) => void

/** How long a publisher waits for subscribers that read slowly, in milliseconds: from one of these to two, or longer where it is told to. */
const patience = 50

/** How long it is looked for subscribers that are waited for, in milliseconds: publishers that are left then wait no longer. */
const looking = 2

/** Called about messages. */
export interface DispatcherHooks {
  /** A message leaves for its subscribers, before the first of them gets it. */
  readonly onEmit: (packet: AedesPublishPacket) => void
  /** In the same turn: each of them has been given it. */
  readonly onEmitted: () => void
  /** Who has published the message that leaves; nobody where they are not to wait longer. */
  readonly publisher: () => Client | undefined
  /** Whether any subscriber is congested. */
  readonly isAnyCongested: () => boolean
  /** Whether nobody is to wait for a subscriber. */
  readonly isStalled: (subscriber: Client) => boolean
  /** Whether a publisher is to wait longer for one of them. */
  readonly isWaitedFor: (subscriber: Client, publisher: Client) => boolean
  /** A publisher waits longer. */
  readonly onWait: (publisher: Client) => void
}

/** A message that is not written to all of its subscribers. */
interface Emission {
  readonly subscribers: readonly Subscriber[]
  readonly publisher: Client | undefined
  readonly done: Done
}

/**
 * Hands each message to the subscribers: the place of Aedes' `mq`, which is mqemitter by default.
 *
 * A publisher goes on when its message has been written to all subscribers. That paces a flood to what the subscribers
 * take; for 100 ms, and as long as one of them is congested and takes bytes (see `Congestion`), so that one who does not read at all cannot
 * hold up anybody else. mqemitter waits until the slowest has taken it, and then lets at most 100 messages wait in the whole broker.
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
      // Not at once: Aedes would ask for more while its parser is still at work on this packet, and parse it right there.
      setImmediate(done)
      this.#hooks.onEmitted()
      return this
    }
    const emission = { subscribers, publisher: this.#hooks.publisher(), done }
    this.#fresh.add(emission)
    this.#timer ??= setInterval(() => this.#letGo(), patience).unref()
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
    this.#letGo()
    this.#letGo()
    setImmediate(done)
  }

  /** Lets publishers go on that have waited for long enough. */
  #letGo(): void {
    const late = this.#stale
    this.#stale = this.#fresh
    this.#fresh = new Set()
    const end = performance.now() + looking
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
