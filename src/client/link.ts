import type { Gap, PushEvent } from './api.js'
import type { Query, Requester } from './credentials.js'
import type { Problem } from './failure.js'

/** What a connection is told when it is through. */
export interface Welcome {
  readonly connection?: string
  /** Under which name it is present, and its receipts are kept. */
  readonly device: string
  /** Seconds of silence after which the gateway says something. */
  readonly heartbeat?: number
  readonly topics?: { readonly in: string; readonly out: string }
}

/** What the gateway says, in the words of its sockets; what else it says there is no concern of whoever listens. */
export interface Messages {
  readonly welcome: Welcome
  readonly event: PushEvent
  readonly gap: Gap
  /** Everything up to here has been said. */
  readonly live: { readonly cursor: string | undefined }
  /** Why it closes the connection. */
  readonly end: Problem
}

/** Sends a message that is answered. Rejects with a `Failure`. */
export type Ask = (message: object) => Promise<unknown>

/** What a transport gets from the client for one connection. */
export interface Link extends Requester {
  readonly signal: AbortSignal
  /** What is subscribed to, and from where on, as of now. */
  query(): Query
  /**
   * Hands on what was said; after the abort, nobody hears it.
   *
   * @param type a key of `Messages`; of anything else, it is heard that somebody is there
   * @param ask where requests can be made over the connection
   * @throws {Failure} where that was the end
   */
  said(type: string, message?: unknown, ask?: Ask): void
}

/** Carries what is said over one connection until that ends: rejects, and never resolves. */
export type Carrier = (link: Link) => Promise<never>
