/*
 * What whoever uses the client sees: all of its types, and nothing else. This file is copied into `public/mqway.d.ts`, so it
 * imports nothing.
 */

/** The ways in which events can come, best first: a WebSocket, an event stream over HTTP, and long-polling. */
export type Transport = 'socket' | 'sse' | 'poll'

/** A message on a topic, with its place in the order of things. */
export interface PushEvent {
  /** Opaque. What a receipt names, and where `cursor` goes on. */
  readonly id: string
  readonly topic: string
  /** When the gateway wrote it down, in ISO 8601. */
  readonly time: string
  /** The payload, where it is text; else, its bytes are in `payloadBase64`. */
  readonly payload?: string
  readonly payloadBase64?: string
  /** What the payload says, where it is JSON and `json` was asked for. */
  readonly json?: unknown
  /** This is the state of the topic, told to a newcomer, and no news. */
  readonly retained?: boolean
}

/** Events that the gateway no longer has: what came between `cursor` and `resumes` is lost. */
export interface Gap {
  /** Too long ago, from before the journal was lost, no cursor of this gateway at all, or never written down. */
  readonly reason: 'evicted' | 'other-epoch' | 'unknown' | 'missed'
  readonly cursor: string
  readonly resumes: string
}

/** What the client is doing. */
export type ClientState =
  /** Nobody listens: there is no topic, or neither `onEvent` nor an iteration that keeps up. */
  | { readonly phase: 'idle' }
  | { readonly phase: 'connecting'; readonly transport: Transport; readonly failures: number }
  | {
      readonly phase: 'open'
      readonly transport: Transport
      /** Under which name receipts are kept; said by the gateway. */
      readonly device: string
      /** Names this connection; long-polls have none. */
      readonly connection?: string | undefined
      /** The topics of this connection alone; sockets have them. */
      readonly topics?: { readonly in: string; readonly out: string } | undefined
    }
  | {
      readonly phase: 'waiting'
      /** Why: `network`, `silent`, or a reason of the gateway's, such as `shutting-down`. */
      readonly reason: string
      /** A sentence, where the gateway gave one. */
      readonly detail?: string | undefined
      /** Tries that failed in a row. */
      readonly failures: number
      /** When the next try is, in milliseconds since 1970. */
      readonly retryAt: number
    }
  /** For good: by `close()`, or because the gateway refuses what is asked for. */
  | { readonly phase: 'closed'; readonly error?: PushError | undefined }

/** What the gateway objects to. */
export interface PushError extends Error {
  /** The HTTP status; 0 where there was no answer. */
  readonly status: number
  /** Such as `topic-refused` or `identity-required`. */
  readonly reason: string
  /** Which parameter or member is wrong. */
  readonly parameter?: string
}

export interface ConnectOptions {
  /** Where the gateway is. Default: where the page came from; required where there is no page. */
  readonly url?: string | URL
  /** MQTT topic filters, at most 100: `/news/+/sport`, `news/#`. */
  readonly topics?: readonly string[]
  /** Where to go on: a `cursor` of an earlier client. Default: what is retained, and then what comes. */
  readonly cursor?: string | undefined
  /** Without a cursor: so many of the newest events first (up to 10,000), in place of what is retained. */
  readonly last?: number
  /** Whether events whose payload is JSON have it parsed under `json`. Default: false. */
  readonly json?: boolean
  /** A name for this device, where the credentials say none. Default: one that the gateway gives, kept while this client lives. */
  readonly device?: string
  /** Which transports may be used, best first: `socket`, `sse`, `poll`. Default: all. `connect` throws a `TypeError` for any other. */
  readonly transports?: readonly Transport[]
  /** A JWT; a function is asked for it again whenever one is needed. */
  readonly token?: string | (() => string | Promise<string>)
  /**
   * Whether tabs of this browser share one event stream or poll, of which browsers open six over plain HTTP: then they are one device.
   * Set it where the tabs' tokens are the same person's. Works where there are Web Locks, over plain HTTP on localhost alone.
   * Default: true without `token`, `ticket` and `device`.
   */
  readonly share?: boolean
  /** Gets a single-use ticket from the page's own back end, where the page has no token. Asked again for each connection. */
  readonly ticket?: () => string | Promise<string>
  /** Each event once, in order. Without it, iterate over the client: it is connected while somebody does. */
  readonly onEvent?: (event: PushEvent, client: Client) => void
  /** Something was lost: the page has to get its state anew. */
  readonly onGap?: (gap: Gap, client: Client) => void
  readonly onState?: (state: ClientState, client: Client) => void
  /** How long a transport may take to get through before the next one is tried, in milliseconds. Default: 5000. */
  readonly patience?: number
  /** Milliseconds between tries: the first is about `min`, and each takes twice as long, up to `max`. Default: 500 and 30,000. */
  readonly retry?: { readonly min?: number; readonly max?: number }
  /** How soon a better transport is tried again, in milliseconds; twice as long after each failure. Default: 10,000. */
  readonly upgradeAfter?: number
}

export interface PublishOptions {
  /** Default: 1. */
  readonly qos?: 0 | 1 | 2
  /** Default: false. */
  readonly retain?: boolean
  /** Who is to acknowledge it, by name or whoever is present, and within what time (`10s`). */
  readonly receipt?: { readonly from: readonly string[] | 'present'; readonly within: string }
}

export type ReceiptStatus = 'received' | 'processed' | 'failed'

/** What the gateway wrote down. */
export interface Receipt {
  readonly id: string
  readonly device: string
  /** Who it is from, where that is known. */
  readonly user?: string
  readonly status: ReceiptStatus
  readonly time: string
  readonly detail?: string
}

/** Iterations share the events: what one has left is there for the next. */
export interface Client extends AsyncIterable<PushEvent> {
  readonly state: ClientState
  /** The place that was reached: what a later client goes on from. Whoever iterates goes on from the id of their last event. */
  readonly cursor: string | undefined
  /** The topic filters that are subscribed to. */
  readonly topics: readonly string[]

  /** Subscribes to more, and leaves nothing out of what is there. */
  subscribe(...topics: string[]): void
  unsubscribe(...topics: string[]): void

  /**
   * Publishes once, however often it has to be sent: tried for 30 seconds while there is no answer.
   *
   * @returns the id of the event; `null` where the gateway keeps no events on this topic
   * @throws {PushError}
   */
  publish(
    topic: string,
    payload: string | Uint8Array,
    options?: PublishOptions,
  ): Promise<{ readonly id: string | null }>

  /**
   * Says what became of an event. Tried until there is an answer, or the client is closed.
   *
   * @param detail text, at most 1 KiB
   * @throws {PushError}
   */
  receipt(id: string, status: ReceiptStatus, detail?: string): Promise<Receipt>

  /**
   * Publishes to this connection's own topic, `socket/<connection>/in`.
   *
   * @throws {PushError} `no-socket` while events come in another way; `network` where the socket was lost before the answer
   */
  send(payload: string | Uint8Array): Promise<void>

  /** Does not wait for the next try. */
  tryNow(): void
  /** Ends it for good. Idempotent. */
  close(): void
}
