import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import { timeLimit } from '../../base/time-limit.js'
import type { Connection } from '../../mqtt/connection.js'
import type { Message } from '../../mqtt/message.js'
import { ReconnectingConnection } from '../../mqtt/reconnecting-connection.js'

export interface DeliveryOptions {
  /** Connects to the broker. */
  readonly connect: () => Promise<Connection>
  /** Called after each new connection: the broker may have lost its retained messages. */
  readonly onConnected: () => void
  /** Timeout of a delivery, in milliseconds. */
  readonly timeout: number
  readonly log: Logger
}

/** Publishes messages over one connection, which it reopens. */
export class Delivery {
  readonly #options: DeliveryOptions
  readonly #connection: ReconnectingConnection
  readonly #closing = new AbortController()
  readonly #waiting = new Set<() => void>()
  /** The last logged reason for being disconnected. */
  #reason: string | undefined

  constructor(options: DeliveryOptions) {
    this.#options = options
    this.#connection = new ReconnectingConnection({
      connect: options.connect,
      onUp: () => this.#onUp(),
      onDown: reason => this.#onDown(reason),
    })
  }

  /**
   * Resolves with whether the broker has acknowledged all messages within the timeout. `make` is called for each attempt; there is
   * one after each reconnect. A refused message resolves with `false` only after the timeout, because supervisord sends it again.
   */
  async deliver(make: () => readonly Message[]): Promise<boolean> {
    const limit = timeLimit(this.#options.timeout, this.#closing.signal)
    const { signal } = limit
    const overdue = new Promise<false>(resolve => {
      if (signal.aborted) resolve(false)
      signal.addEventListener('abort', () => resolve(false), { once: true })
    })
    return await Promise.race([this.#try(make, signal, overdue), overdue]).finally(() => limit.end())
  }

  async #try(make: () => readonly Message[], signal: AbortSignal, overdue: Promise<false>): Promise<boolean> {
    while (!signal.aborted) {
      const connection = this.#connection.connection
      if (!connection || connection.closed) {
        await this.#untilChange(signal)
        continue
      }
      const messages = make()
      try {
        for (const message of messages) connection.requireAccepted(message)
        // QoS 0 has no acknowledgement.
        if (!connection.supportsQos1) throw new GatewayError('topic-refused', { hint: 'the broker takes QoS 0 alone' })
        await Promise.all(messages.map(message => connection.publish(message)))
        return true
      } catch (error) {
        if (!(error instanceof GatewayError)) continue
        this.#options.log.error({ err: error, topic: messages.at(-1)?.topic }, 'The broker refuses the message')
        return overdue
      }
    }
    return overdue
  }

  #untilChange(signal: AbortSignal): Promise<void> {
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
    this.#reason = undefined
    this.#options.log.info('Connected to the broker')
    this.#options.onConnected()
    for (const proceed of [...this.#waiting]) proceed()
  }

  #onDown(reason: unknown): void {
    // The cause of a GatewayError has the address and the reason.
    const error = reason instanceof GatewayError ? (reason.cause ?? reason) : reason
    const text = error instanceof Error ? error.message : String(error)
    if (text !== this.#reason) this.#options.log.warn(`The broker is away: ${text}`)
    this.#reason = text
  }

  /** Fails the current delivery, and disconnects. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#connection.close()
  }
}
