import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import type { Connection } from '../../mqtt/connection.js'
import type { Message } from '../../mqtt/message.js'
import { ReconnectingConnection } from '../../mqtt/reconnecting-connection.js'

/** What deliveries need. */
export interface DeliveryOptions {
  /** Makes a connection to the broker. */
  readonly connect: () => Promise<Connection>
  /** Called with each new connection: the broker that is there may not have what the last one had. */
  readonly onConnected: () => void
  /** How long the broker may be away, or be silent, before a delivery has failed; in milliseconds. */
  readonly timeout: number
  readonly log: Logger
}

/** Hands messages to the broker, over a connection that is kept. */
export class Delivery {
  readonly #options: DeliveryOptions
  readonly #link: ReconnectingConnection
  readonly #closing = new AbortController()
  readonly #waiting = new Set<() => void>()
  /** Why the broker is away, as it was last said. */
  #away: string | undefined

  constructor(options: DeliveryOptions) {
    this.#options = options
    this.#link = new ReconnectingConnection({
      connect: options.connect,
      onUp: () => this.#onUp(),
      onDown: reason => this.#onDown(reason),
    })
  }

  /**
   * Resolves with whether the broker has acknowledged all messages, which are made anew for each attempt. It waits for
   * one that is away, and tries again when the connection is lost, as long as there is time; what it refuses takes as
   * long, as it will be refused again.
   */
  async deliver(make: () => readonly Message[]): Promise<boolean> {
    const signal = AbortSignal.any([AbortSignal.timeout(this.#options.timeout), this.#closing.signal])
    const overdue = new Promise<false>(resolve => {
      if (signal.aborted) resolve(false)
      signal.addEventListener('abort', () => resolve(false), { once: true })
    })
    return await Promise.race([this.#try(make, signal, overdue), overdue])
  }

  async #try(make: () => readonly Message[], signal: AbortSignal, overdue: Promise<false>): Promise<boolean> {
    while (!signal.aborted) {
      const connection = this.#link.connection
      if (!connection || connection.closed) {
        await this.#change(signal)
        continue
      }
      const messages = make()
      try {
        for (const message of messages) connection.requireTakes(message)
        // What is published with QoS 0 may get lost, and nobody would know.
        if (!connection.acknowledges) throw new GatewayError('topic-refused', { hint: 'the broker takes QoS 0 alone' })
        await Promise.all(messages.map(message => connection.publish(message)))
        return true
      } catch (error) {
        if (!(error instanceof GatewayError)) continue
        this.#options.log.error({ err: error, topic: messages.at(-1)?.topic }, 'the broker refuses the message')
        return overdue
      }
    }
    return overdue
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const done = (): void => {
        this.#waiting.delete(done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      this.#waiting.add(done)
      signal.addEventListener('abort', done)
    })
  }

  #onUp(): void {
    this.#away = undefined
    this.#options.log.info('connected to the broker')
    this.#options.onConnected()
    for (const proceed of [...this.#waiting]) proceed()
  }

  #onDown(reason: unknown): void {
    // An Ending is what a client would be told; its cause says which broker, and why.
    const told = reason instanceof GatewayError ? (reason.cause ?? reason) : reason
    const text = told instanceof Error ? told.message : String(told)
    if (text !== this.#away) this.#options.log.warn(`the broker is away: ${text}`)
    this.#away = text
  }

  /** Fails what is under way, and says good-bye to the broker. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#link.close()
  }
}
