import { FairQueue } from '../../base/fair-queue.js'

/**
 * Bytes of SUBSCRIBE and UNSUBSCRIBE packets that are handed to the broker in one turn of the event loop, besides the one that crosses this:
 * it takes each packet apart in one go, at some 0.1 ms for a KiB of the shortest filters.
 */
const bytesPerTurn = 16 * 1024

/** A packet that waits. */
interface WaitingPacket {
  readonly bytes: number
  readonly proceed: () => void
}

/** Spreads the SUBSCRIBE and UNSUBSCRIBE packets of all clients over turns of the event loop; accounts take turns. */
export class SubscribeGate {
  #left = bytesPerTurn
  readonly #waiting = new FairQueue<WaitingPacket>()
  #isScheduled = false

  /**
   * Asks for a packet of so many bytes to be handed over.
   *
   * @param account quota key of the client: its packets keep their order and share one part of the time
   * @param proceed called in a later turn, where this returned false
   * @returns whether it may be handed over at once
   */
  request(account: string, bytes: number, proceed: () => void): boolean {
    // Not at the end of this very turn.
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
    setImmediate(this.#nextTurn)
  }

  readonly #nextTurn = (): void => {
    this.#isScheduled = false
    this.#left = bytesPerTurn
    while (this.#left > 0) {
      const next = this.#waiting.shift()
      if (!next) return
      if (!this.#isScheduled) this.#schedule()
      this.#left -= next.bytes
      next.proceed()
    }
  }
}
