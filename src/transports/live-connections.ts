import { randomBytes } from 'node:crypto'
import { onOver } from '../access/expiry.js'
import { Ending } from '../endings.js'
import type { Identity } from '../identity.js'

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
  readonly end: (ending: Ending) => void
  /** The same user has presented a fresh identity: what may be done follows from it from now on. */
  readonly renewed: (identity: Identity) => void
}

interface Entry {
  identity: Identity
  readonly events: ConnectionEvents
  stopExpiry: () => void
}

/** The event streams and sockets that are open: each ends when its identity expires, unless it is renewed. */
export class LiveConnections {
  readonly #open = new Map<string, Entry>()
  #closed = false

  /** How many are open. */
  get size(): number {
    return this.#open.size
  }

  /** @throws {Ending} `shutting-down` */
  open(identity: Identity, events: ConnectionEvents): LiveConnection {
    if (this.#closed) throw new Ending('shutting-down')
    const id = randomBytes(16).toString('base64url')
    const entry: Entry = { identity, events, stopExpiry: () => {} }
    this.#open.set(id, entry)
    this.#watch(entry)
    return {
      id,
      get identity() {
        return entry.identity
      },
      close: () => {
        entry.stopExpiry()
        this.#open.delete(id)
      },
    }
  }

  /**
   * Gives an open connection a fresh identity of the same user.
   *
   * @returns `false` where there is no such connection
   * @throws {Ending} `identity-refused` where it is another user's
   */
  renew(id: string, identity: Identity): boolean {
    const entry = this.#open.get(id)
    if (!entry) return false
    if (entry.identity.user !== identity.user) {
      throw new Ending('identity-refused', { hint: 'the connection is of another user' })
    }
    entry.stopExpiry()
    entry.identity = identity
    this.#watch(entry)
    entry.events.renewed(identity)
    return true
  }

  /** Ends all that are open, and refuses new ones. */
  close(): void {
    this.#closed = true
    for (const { events } of [...this.#open.values()]) events.end(new Ending('shutting-down'))
  }

  #watch(entry: Entry): void {
    entry.stopExpiry = onOver(entry.identity, ending => entry.events.end(ending))
  }
}
