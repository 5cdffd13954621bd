import { randomBytes } from 'node:crypto'
import { onExpired } from '../access/expiry.js'
import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import type { TimeSlicer } from '../base/time-slicer.js'

export interface ConnectionEvents {
  /** It has to end; it calls `close` then. */
  readonly end: (error: GatewayError) => void
  /** The same user has presented new credentials, or the access rules have changed: its permissions follow from this identity. */
  readonly renewed: (identity: Identity) => void
}

/** An open event stream or socket. A class: an object with a getter of its own takes four times the memory. */
export class LiveConnection {
  /** Its name for clients, hard to guess: 128 random bits in base64url. */
  readonly id = randomBytes(16).toString('base64url')
  identity: Identity
  readonly events: ConnectionEvents
  readonly #all: Map<string, LiveConnection>
  #stopExpiry: (() => void) | undefined

  constructor(all: Map<string, LiveConnection>, identity: Identity, events: ConnectionEvents) {
    this.#all = all
    this.identity = identity
    this.events = events
    all.set(this.id, this)
    this.watch()
  }

  /** Ends it when its identity expires. */
  watch(): void {
    this.#stopExpiry?.()
    const { expires, revocation } = this.identity
    const lasts = expires === undefined && revocation === undefined
    this.#stopExpiry = lasts ? undefined : onExpired(this.identity, error => this.events.end(error))
  }

  /** To be called when it is closed: no event is emitted any more. Idempotent. */
  close(): void {
    this.#stopExpiry?.()
    this.#all.delete(this.id)
  }
}

/** All open event streams and sockets. Each ends when its identity expires, unless it is renewed. */
export class LiveConnections {
  readonly #open = new Map<string, LiveConnection>()
  #closed = false

  get size(): number {
    return this.#open.size
  }

  /** @throws {GatewayError} `shutting-down` */
  open(identity: Identity, events: ConnectionEvents): LiveConnection {
    if (this.#closed) throw new GatewayError('shutting-down')
    return new LiveConnection(this.#open, identity, events)
  }

  has(id: string): boolean {
    return this.#open.has(id)
  }

  /**
   * Gives an open connection a new identity of the same user.
   *
   * @returns `false` if there is no such connection
   * @throws {GatewayError} `identity-refused` if it belongs to another user
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

  /**
   * Applies changed access rules to all: those with a filter that is no longer granted end, or lose it.
   *
   * @param refusalOf why an identity is no longer admitted; `undefined` if it is
   */
  async review(refusalOf: (identity: Identity) => GatewayError | undefined, slicer: TimeSlicer): Promise<void> {
    await slicer.next('clients')
    // A map may change while it is iterated.
    for (const [id, connection] of this.#open) {
      if (slicer.isOver) await slicer.next('clients')
      if (!this.#open.has(id)) continue
      const refusal = refusalOf(connection.identity)
      if (refusal) connection.events.end(refusal)
      else connection.events.renewed(connection.identity)
      if (!this.#open.has(id)) slicer.endedConnection()
    }
  }

  /** Ends all, and refuses new ones. */
  close(reason = new GatewayError('shutting-down')): void {
    this.#closed = true
    for (const { events } of [...this.#open.values()]) events.end(reason)
  }
}
