import { FairQueue } from '../../base/fair-queue.js'

/**
 * Bytes of SUBSCRIBE and UNSUBSCRIBE packets passed to the broker in one event-loop tick; the last packet may exceed it. The broker parses
 * each synchronously, at some 0.1 ms for a KiB of the shortest filters.
 */
const bytesPerTick = 16 * 1024

interface WaitingPacket {
  readonly bytes: number
  readonly proceed: () => void
}

/** Spreads the SUBSCRIBE and UNSUBSCRIBE packets of all clients over event-loop ticks; accounts take turns. */
export class SubscribeGate {
  #left = bytesPerTick
  readonly #waiting = new FairQueue<WaitingPacket>()
  #isScheduled = false

  /**
   * Requests to pass a packet.
   *
   * @param account quota key of the client: its packets keep their order and share one part of the time
   * @param proceed called in a later tick, where this returns false
   * @returns whether it may pass at once
   */
  request(account: string, bytes: number, proceed: () => void): boolean {
    // Not at the end of this tick.
    if (!this.#isScheduled) setImmediate(() => this.#schedule())
    this.#isScheduled = true
    if (this.#left > 0 && this.#waiting.size === 0) {
      this.#left -= bytes
      return true
    }
    this.#waiting.push(account, { bytes, proceed })
    return false
  }

  #schedule(): void {
    this.#isScheduled = true
    setImmediate(this.#nextTick)
  }

  readonly #nextTick = (): void => {
    this.#isScheduled = false
    this.#left = bytesPerTick
    while (this.#left > 0) {
      const next = this.#waiting.shift()
      if (!next) return
      if (!this.#isScheduled) this.#schedule()
      this.#left -= next.bytes
      next.proceed()
    }
  }
}
