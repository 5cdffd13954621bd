import type { Logger } from '../base/log.js'
import { ConnectionRefusal } from './broker-responses.js'
import type { Connection } from './connection.js'
import { bridge, mqtt5, type ProtocolProfile, plain } from './protocol-profile.js'

/** Negotiates the protocol profile with a broker: tries the most expressive first, and remembers the one that worked. */
export class ProtocolNegotiator {
  readonly #profiles: readonly ProtocolProfile[] = [mqtt5, bridge, plain]
  readonly #log: Logger
  #index = 0
  #warned = false

  constructor(log: Logger) {
    this.#log = log
  }

  /** Connects with the next profile that works; rejects with the error of the last attempt. */
  async connect(attempt: (profile: ProtocolProfile) => Promise<Connection>): Promise<Connection> {
    for (let tried = 1; ; tried++) {
      const index = this.#index
      const profile = this.#profiles[index % this.#profiles.length] ?? plain
      try {
        const connection = await attempt(profile)
        this.#warn(profile)
        return connection
      } catch (error) {
        if (!(error instanceof ConnectionRefusal && error.mayBeProfile)) throw error
        // Tries all in rotation: a broker that closes each connection may still be starting.
        if (this.#index === index) this.#index++
        if (tried === this.#profiles.length) throw error
      }
    }
  }

  #warn({ retainAsPublished, name }: ProtocolProfile): void {
    if (retainAsPublished || this.#warned) return
    this.#warned = true
    this.#log.warn(
      `the broker supports only ${name}, which does not mark live messages as retained: messages that are published with RETAIN while push is connected do not become retained messages for new subscribers`,
    )
  }
}
