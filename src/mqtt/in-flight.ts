import type { Packet } from 'mqtt-packet'

/** Called once: with the answer, or with why there is none. */
export type Settle = (error: Error | undefined, answer?: Packet) => void

/** Packet identifiers have 16 bits [MQTT-2.3.1-1]; so many may be in flight where a broker of MQTT 5 does not say less. */
export const maxInFlight = 65_535

/** A publication that waits until fewer are in flight (MQTT 5 §4.9). */
interface Waiting {
  readonly send: (messageId: number) => void
  readonly settle: Settle
}

/** The packets of one connection that wait for an answer, and the publications that may not be sent yet. */
export class InFlight {
  /** By packet identifier. */
  readonly #pending = new Map<number, Settle>()
  readonly #waiting: Waiting[] = []
  #lastId = 0
  #publications = 0
  #onIdle: (() => void) | undefined
  #closed = false

  /** Takes an identifier for a packet. */
  take(settle: Settle): number {
    do {
      this.#lastId = (this.#lastId % maxInFlight) + 1
    } while (this.#pending.has(this.#lastId))
    this.#pending.set(this.#lastId, settle)
    return this.#lastId
  }

  /** Has a publication sent, once fewer than `most` are in flight. */
  publish(most: number, send: Waiting['send'], settle: Settle): void {
    if (this.#publications < most) this.#begin({ send, settle })
    else this.#waiting.push({ send, settle })
  }

  #begin({ send, settle }: Waiting): void {
    this.#publications++
    const messageId = this.take((error, answer) => {
      this.#publications--
      settle(error, answer)
      const next = this.#closed ? undefined : this.#waiting.shift()
      if (next) this.#begin(next)
      if (this.#publications === 0) this.#onIdle?.()
    })
    send(messageId)
  }

  /** An answer has come; one to nothing is ignored. */
  answer(messageId: number, error: Error | undefined, answer: Packet): void {
    const settle = this.#pending.get(messageId)
    this.#pending.delete(messageId)
    settle?.(error, answer)
  }

  /** Calls `then` when no publication is in flight. */
  whenIdle(then: () => void): void {
    if (this.#publications === 0) then()
    else this.#onIdle = then
  }

  /** There will be no answers any more. */
  close(reason: Error): void {
    this.#closed = true
    const pending = [...this.#pending.values()]
    this.#pending.clear()
    for (const settle of pending) settle(reason)
    for (const { settle } of this.#waiting.splice(0)) settle(reason)
  }
}
