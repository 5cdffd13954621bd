import { randomBytes } from 'node:crypto'
import { onExpired } from '../access/expiry.js'
import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'

/** One event stream or socket that is open. */
export interface LiveConnection {
  /** What a client names it by, and what is hard to guess: 128 random bits in base64url. */
  readonly id: string
  readonly identity: Identity
  /** It is closed; nothing of it is called any more. Idempotent. */
  close(): void
}

/** What happens to an open connection from outside. */
export interface ConnectionEvents {
  /** It has to end, for this reason. It calls `close` then. */
  readonly end: (ending: GatewayError) => void
  /** The same user has presented a fresh identity: what may be done follows from it from now on. */
  readonly renewed: (identity: Identity) => void
}

/** A class, because an object with a getter of its own takes four times the memory, and there are ten thousand. */
class Connection implements LiveConnection {
  readonly id = randomBytes(16).toString('base64url')
  identity: Identity
  readonly events: ConnectionEvents
  readonly #all: Map<string, Connection>
  #stopExpiry: (() => void) | undefined

  constructor(all: Map<string, Connection>, identity: Identity, events: ConnectionEvents) {
    this.#all = all
    this.identity = identity
    this.events = events
    all.set(this.id, this)
    this.watch()
  }

  /** Ends it when its identity holds no longer. */
  watch(): void {
    this.#stopExpiry?.()
    const { expires, revocation } = this.identity
    const lasts = expires === undefined && revocation === undefined
    this.#stopExpiry = lasts ? undefined : onExpired(this.identity, ending => this.events.end(ending))
  }

  close(): void {
    this.#stopExpiry?.()
    this.#all.delete(this.id)
  }
}

/** The event streams and sockets that are open: each ends when its identity expires, unless it is renewed. */
export class LiveConnections {
  readonly #open = new Map<string, Connection>()
  #closed = false

  /** How many are open. */
  get size(): number {
    return this.#open.size
  }

  /** @throws {GatewayError} `shutting-down` */
  open(identity: Identity, events: ConnectionEvents): LiveConnection {
    if (this.#closed) throw new GatewayError('shutting-down')
    return new Connection(this.#open, identity, events)
  }

  /**
   * Gives an open connection a fresh identity of the same user.
   *
   * @returns `false` where there is no such connection
   * @throws {GatewayError} `identity-refused` where it is another user's
   */
  renew(id: string, identity: Identity): boolean {
    const connection = this.#open.get(id)
    if (!connection) return false
    if (connection.identity.user !== identity.user) {
      throw new GatewayError('identity-refused', { hint: 'the connection is of another user' })
    }
    connection.identity = identity
    connection.watch()
    connection.events.renewed(identity)
    return true
  }

  /** Ends all that are open, and refuses new ones. */
  close(): void {
    this.#closed = true
    for (const { events } of [...this.#open.values()]) events.end(new GatewayError('shutting-down'))
  }
}
