import type { Logger } from '../log.js'
import type { Base } from './base.js'
import type { Owner, Owners } from './owners.js'

/** As many messages as can be under way to a client that is connected: packet identifiers have 16 bits [MQTT-2.3.1-1]. */
const maxUnacknowledged = 65_535

/** Bounds of the sessions. */
export interface SessionLimits {
  /** How many messages may wait for a client that is not connected. */
  readonly maxQueuedMessages: number
  /** After how long without its client a session ends, in milliseconds. */
  readonly sessionExpiry: number | 'off'
}

interface Session {
  owner: Owner | undefined
  seen: number
  queued: number
  warned: boolean
}

/** What sessions need. */
export interface SessionsOptions {
  readonly base: Base
  readonly limits: SessionLimits
  readonly owners: Pick<Owners, 'of'>
  readonly log: Logger
  readonly onError: (error: unknown) => void
}

/** Which sessions there are, since when each is without its client, and how many messages wait for it. */
export class Sessions {
  /** Messages that were not queued because the queue was full. */
  dropped = 0
  readonly #options: SessionsOptions
  readonly #sessions = new Map<string, Session>()
  readonly #connected = new Map<string, object>()

  constructor(options: SessionsOptions) {
    this.#options = options
    for (const { id, ...stored } of options.base.sessions) this.#sessions.set(id, { ...stored, warned: false })
  }

  has(id: string): boolean {
    return this.#sessions.has(id)
  }

  /** Whose session it is; `undefined` where there is none, and where nobody asked when it was made. */
  ownerOf(id: string): Owner | undefined {
    return this.#sessions.get(id)?.owner
  }

  /** Call when a client wants its session; makes it where there is none. */
  open(id: string): void {
    const session = this.#sessions.get(id) ?? { owner: undefined, seen: 0, queued: 0, warned: false }
    session.owner ??= this.#options.owners.of(id)
    this.#sessions.set(id, session)
    this.#touch(id)
  }

  /** Call when `client` is connected, with a session or without. */
  connected(client: { readonly id: string }): void {
    this.#connected.set(client.id, client)
  }

  /** Call when `client` is no longer connected; nothing happens where another one has taken its place. */
  disconnected(client: { readonly id: string }): void {
    if (this.#connected.get(client.id) !== client) return
    this.#connected.delete(client.id)
    this.#touch(client.id)
  }

  async remove(id: string): Promise<void> {
    if (this.#sessions.delete(id)) await this.#options.base.forgetSession(id)
  }

  /** The sessions that have been without their client for too long. To be asked every hour or so; each as it is then. */
  *expired(): Generator<string> {
    for (const id of this.#connected.keys()) this.#touch(id)
    const { sessionExpiry } = this.#options.limits
    if (sessionExpiry === 'off') return
    for (const [id, { seen }] of this.#sessions) {
      if (!this.#connected.has(id) && seen + sessionExpiry <= Date.now()) yield id
    }
  }

  /**
   * Whether one more message may be queued for the session; if so, it counts until `release`. As in mosquitto, it is the
   * new message that is dropped.
   */
  admit(id: string): boolean {
    const session = this.#sessions.get(id)
    if (!session) return true
    const { maxQueuedMessages } = this.#options.limits
    const limit = this.#connected.has(id) ? Math.max(maxQueuedMessages, maxUnacknowledged) : maxQueuedMessages
    if (session.queued < limit) {
      session.queued++
      return true
    }
    this.dropped++
    if (!session.warned) {
      session.warned = true
      this.#options.log.warn(
        { clientId: id },
        `${limit} messages wait for the session; further ones for it are dropped`,
      )
    }
    return false
  }

  /** Call when a message has left the session's queue. */
  release(id: string): void {
    const session = this.#sessions.get(id)
    if (session && session.queued > 0) session.queued--
  }

  #touch(id: string): void {
    const session = this.#sessions.get(id)
    if (!session) return
    session.seen = Date.now()
    this.#options.base.keepSession(id, session).catch(this.#options.onError)
  }
}
