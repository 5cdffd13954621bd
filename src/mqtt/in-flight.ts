import type { Packet } from 'mqtt-packet'

/** Called once, with the response or an error. */
export type Settle = (error: Error | undefined, response?: Packet) => void

/** Packet identifiers have 16 bits [MQTT-2.3.1-1]; also MQTT 5's default receive maximum. */
export const maxInFlight = 65_535

/** A publication that waits for flow control (MQTT 5 §4.9). */
interface Waiting {
  readonly send: (messageId: number) => void
  readonly settle: Settle
}

/** The packets of a connection that wait for a response, and the publications that wait to be sent. */
export class InFlight {
  /** By packet identifier. */
  readonly #pending = new Map<number, Settle>()
  readonly #waiting: Waiting[] = []
  #lastId = 0
  #publications = 0
  #onIdle: (() => void) | undefined
  #closed = false

  /** Returns an unused packet identifier. */
  take(settle: Settle): number {
    do {
      this.#lastId = (this.#lastId % maxInFlight) + 1
    } while (this.#pending.has(this.#lastId))
    this.#pending.set(this.#lastId, settle)
    return this.#lastId
  }

  /** Sends a publication when fewer than `max` are in flight. */
  publish(max: number, send: Waiting['send'], settle: Settle): void {
    if (this.#publications < max) this.#start({ send, settle })
    else this.#waiting.push({ send, settle })
  }

  #start({ send, settle }: Waiting): void {
    this.#publications++
    const messageId = this.take((error, response) => {
      this.#publications--
      settle(error, response)
      const next = this.#closed ? undefined : this.#waiting.shift()
      if (next) this.#start(next)
      if (this.#publications === 0) this.#onIdle?.()
    })
    send(messageId)
  }

  /** Call with each response; an unexpected one is ignored. */
  settle(messageId: number, error: Error | undefined, response: Packet): void {
    const settle = this.#pending.get(messageId)
    this.#pending.delete(messageId)
    settle?.(error, response)
  }

  /** Calls `then` when no publication is in flight. */
  whenIdle(then: () => void): void {
    if (this.#publications === 0) then()
    else this.#onIdle = then
  }

  close(reason: Error): void {
    this.#closed = true
    const pending = [...this.#pending.values()]
    this.#pending.clear()
    for (const settle of pending) settle(reason)
    for (const { settle } of this.#waiting.splice(0)) settle(reason)
  }
}
