import type { AedesPublishPacket } from 'aedes'
import type { Deliver, LiveSubscriptions } from './live-subscriptions.js'

type Done = (error?: Error) => void

/** How long a publisher waits for subscribers that read slowly, in milliseconds: from one of these to two. */
const patience = 50

/**
 * Hands each message to the subscribers: the place of Aedes' `mq`, which is mqemitter by default.
 *
 * A publisher goes on when its message has been written to all subscribers. That paces a flood to what the subscribers
 * take; but only for 100 ms, so that one who does not read at all cannot hold up anybody else. mqemitter waits until
 * the slowest has taken it, and then lets at most 100 messages wait in the whole broker.
 */
export class Dispatcher {
  readonly #subscriptions: LiveSubscriptions
  readonly #onEmit: () => void
  readonly #onEmitted: () => void
  #closed = false
  #fresh = new Set<Done>()
  #stale = new Set<Done>()
  #timer: NodeJS.Timeout | undefined

  /**
   * @param subscriptions finds the subscribers of a message
   * @param onEmit called when a message leaves for its subscribers, before the first of them gets it
   * @param onEmitted called in the same turn, when each of them has been given it
   */
  constructor(subscriptions: LiveSubscriptions, onEmit: () => void, onEmitted: () => void) {
    this.#subscriptions = subscriptions
    this.#onEmit = onEmit
    this.#onEmitted = onEmitted
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
    this.#onEmit()
    const subscribers = this.#subscriptions.match(packet.topic)
    let left = subscribers.length
    if (left === 0) {
      // Not at once: Aedes would ask for more while its parser is still at work on this packet, and parse it right there.
      setImmediate(done)
      this.#onEmitted()
      return this
    }
    this.#fresh.add(done)
    this.#timer ??= setInterval(() => this.#letGo(), patience).unref()
    const delivered = (): void => {
      left--
      if (left === 0 && (this.#fresh.delete(done) || this.#stale.delete(done))) done()
    }
    for (const { deliver } of subscribers) {
      if (deliver) deliver(packet, delivered)
      else delivered()
    }
    this.#onEmitted()
    return this
  }

  close(done: () => void): void {
    this.#closed = true
    this.#letGo()
    this.#letGo()
    setImmediate(done)
  }

  #letGo(): void {
    const late = this.#stale
    this.#stale = this.#fresh
    this.#fresh = new Set()
    for (const done of late) done()
    if (this.#fresh.size > 0 || this.#stale.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
