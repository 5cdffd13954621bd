import type { Logger } from '../base/log.js'
import { ConnectionRefusal } from './broker-responses.js'
import type { Connection } from './connection.js'
import { bridge, mqtt5, type ProtocolProfile, plain } from './protocol-profile.js'

/** Finds out which form of MQTT a broker speaks: the one that says most comes first. What worked is tried first again. */
export class ProtocolProfiles {
  readonly #dialects: readonly ProtocolProfile[] = [mqtt5, bridge, plain]
  readonly #log: Logger
  #at = 0
  #told = false

  constructor(log: Logger) {
    this.#log = log
  }

  /** Makes a connection with the next dialect that may work; rejects with what the last one was refused with. */
  async connect(attempt: (dialect: ProtocolProfile) => Promise<Connection>): Promise<Connection> {
    for (let tried = 1; ; tried++) {
      const at = this.#at
      const dialect = this.#dialects[at % this.#dialects.length] ?? plain
      try {
        const connection = await attempt(dialect)
        this.#tell(dialect)
        return connection
      } catch (error) {
        if (!(error instanceof ConnectionRefusal && error.mayBeDialect)) throw error
        // All of them in turn: a broker that closes each connection may as well be about to start.
        if (this.#at === at) this.#at++
        if (tried === this.#dialects.length) throw error
      }
    }
  }

  #tell({ retainAsPublished, name }: ProtocolProfile): void {
    if (retainAsPublished || this.#told) return
    this.#told = true
    this.#log.warn(
      `the broker speaks ${name} and no more: it does not tell which messages are retained, and so what is published while push is connected is not there as state for those who come later`,
    )
  }
}
