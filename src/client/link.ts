import type { Gap, PushEvent } from './api.js'
import type { Query, Requester } from './credentials.js'
import type { Problem } from './failure.js'

/** The first message of a connection. */
export interface Welcome {
  readonly connection?: string
  /** The device name for presence and receipts. */
  readonly device: string
  /** Interval of heartbeats, in seconds. */
  readonly heartbeat?: number
  readonly topics?: { readonly in: string; readonly out: string }
}

/** The gateway's messages, in the format of its sockets; other types are ignored. */
export interface Messages {
  readonly welcome: Welcome
  readonly event: PushEvent
  readonly gap: Gap
  /** All events up to this position have been sent. */
  readonly live: { readonly cursor: string | undefined }
  /** The reason why it closes the connection. */
  readonly end: Problem
}

/** Sends a message and resolves with its response. Rejects with a `Failure`. */
export type SendRequest = (message: object) => Promise<unknown>

/** The client's side of one connection, for a transport. */
export interface Link extends Requester {
  readonly signal: AbortSignal
  /** The current topics and position. */
  query(): Query
  /**
   * Passes on a message; ignored after the abort.
   *
   * @param type a key of `Messages`; other types only show that the connection is alive
   * @param sendRequest sends requests over the connection, if the transport can
   * @throws {Failure} if it ends the connection
   */
  onMessage(type: string, message?: unknown, sendRequest?: SendRequest): void
}

/** Runs one connection until its end: rejects, and never resolves. */
export type Carrier = (link: Link) => Promise<never>
