/*
 * The public types of the client. This file is copied into `public/mqway.d.ts`, so it imports nothing.
 */

/** The transports, best first: a WebSocket, an event stream over HTTP, and long-polling. */
export type Transport = 'socket' | 'sse' | 'poll'

/** A message on a topic, with its position in the journal. */
export interface PushEvent {
  /** Opaque. Names the event in receipts, and is a position for `cursor`. */
  readonly id: string
  readonly topic: string
  /** When the gateway stored it, in ISO 8601. */
  readonly time: string
  /** The payload, if it is text; otherwise its bytes are in `payloadBase64`. */
  readonly payload?: string
  readonly payloadBase64?: string
  /** The parsed payload, if it is JSON and the option `json` is set. */
  readonly json?: unknown
  /** The MIME type of the payload, as its publisher says. */
  readonly contentType?: string
  /** User properties of MQTT 5: names and values, in order; names may repeat. */
  readonly userProperties?: readonly (readonly [name: string, value: string])[]
  /** The topic for answers. */
  readonly responseTopic?: string
  /** Data that a response repeats, in base64. */
  readonly correlationData?: string
  /** When it expires, in ISO 8601; it is delivered no more then. */
  readonly expires?: string
  /** This is the retained message of the topic, for a new subscriber. */
  readonly retained?: boolean
}

/** Events that the gateway no longer has: those between `cursor` and `resumes` are lost. */
export interface Gap {
  /** Too old; from before the loss of the journal; not a cursor of this gateway; or never stored. */
  readonly reason: 'evicted' | 'other-epoch' | 'unknown' | 'missed'
  readonly cursor: string
  readonly resumes: string
}

/** The state of the client. */
export type ClientState =
  /** Not connected: there is no topic, or neither `onEvent` nor an iteration that keeps up. */
  | { readonly phase: 'idle' }
  | { readonly phase: 'connecting'; readonly transport: Transport; readonly failures: number }
  | {
      readonly phase: 'open'
      readonly transport: Transport
      /** The device name for receipts, from the gateway. */
      readonly device: string
      /** The name of this connection; long-polls have none. */
      readonly connection?: string | undefined
      /** The own topics of this connection; only sockets have them. */
      readonly topics?: { readonly in: string; readonly out: string } | undefined
    }
  | {
      readonly phase: 'waiting'
      /** `network`, `silent`, or a reason of the gateway, such as `shutting-down`. */
      readonly reason: string
      /** The gateway's sentence, if it gave one. */
      readonly detail?: string | undefined
      /** Failed attempts in a row. */
      readonly failures: number
      /** Time of the next attempt, in milliseconds since 1970. */
      readonly retryAt: number
    }
  /** Permanently: by `close()`, or because the gateway refuses the request. */
  | { readonly phase: 'closed'; readonly error?: PushError | undefined }

/** An error of the gateway, or of the connection to it. */
export interface PushError extends Error {
  /** The HTTP status; 0 without a response. */
  readonly status: number
  /** Such as `topic-refused` or `identity-required`. */
  readonly reason: string
  /** The invalid parameter or member. */
  readonly parameter?: string
}

export interface ConnectOptions {
  /** The address of the gateway. Default: the page's origin; required outside of pages. */
  readonly url?: string | URL
  /** MQTT topic filters, at most 100: `/news/+/sport`, `news/#`. */
  readonly topics?: readonly string[]
  /** The position to continue from: a `cursor` of an earlier client. Default: retained messages, then new events. */
  readonly cursor?: string | undefined
  /** Without a cursor: the number of newest events to get after the retained messages (up to 10,000). */
  readonly last?: number
  /** Whether events have their parsed payload in `json`, if it is JSON. Default: false. */
  readonly json?: boolean
  /** A name for this device, if the credentials contain none. Default: one from the gateway, for the lifetime of this client. */
  readonly device?: string
  /** Which transports may be used, best first: `socket`, `sse`, `poll`. Default: all. `connect` throws a `TypeError` for any other. */
  readonly transports?: readonly Transport[]
  /** A JWT, or a function that is called whenever one is needed. */
  readonly token?: string | (() => string | Promise<string>)
  /**
   * Whether tabs of this browser share one event stream or poll over plain HTTP, where browsers open at most six: then they are one
   * device. Set it if the tabs' tokens belong to the same person.
   * Default: true without `token`, `ticket` and `device`.
   */
  readonly share?: boolean
  /** Gets a single-use ticket from the page's back end, for pages without a token. Called for each connection. */
  readonly ticket?: () => string | Promise<string>
  /** Called with each event once, in order. Without it, iterate over the client: it is connected during iterations. */
  readonly onEvent?: (event: PushEvent, client: Client) => void
  /** Called when events are lost: the page has to load its state again. */
  readonly onGap?: (gap: Gap, client: Client) => void
  readonly onState?: (state: ClientState, client: Client) => void
  /** Timeout for a transport to connect before the next one is tried, in milliseconds. Default: 5000. */
  readonly connectTimeout?: number
  /** Milliseconds between attempts: about `min` at first, doubled each time, up to `max`. Default: 500 and 30,000. */
  readonly retry?: { readonly min?: number; readonly max?: number }
  /** Delay before a better transport is tried again, in milliseconds; doubled after each failure. Default: 10,000. */
  readonly upgradeAfter?: number
}

export interface PublishOptions {
  /** Default: 1. */
  readonly qos?: 0 | 1 | 2
  /** Default: false. */
  readonly retain?: boolean
  /** The devices that have to acknowledge it, by name or all present ones, and the time limit (`10s`). */
  readonly receipt?: { readonly from: readonly string[] | 'present'; readonly within: string }
  /** The MIME type of the payload. */
  readonly contentType?: string
  /** User properties of MQTT 5: names and values, in order; or an object of strings or lists of strings. */
  readonly userProperties?:
    | readonly (readonly [name: string, value: string])[]
    | Readonly<Record<string, string | readonly string[]>>
  /** The topic for answers. */
  readonly responseTopic?: string
  /** Data that a response repeats, in base64. */
  readonly correlationData?: string
  /** When it expires: a time such as `30s`, or a date and time in ISO 8601. */
  readonly expires?: string
}

export type ReceiptStatus = 'received' | 'processed' | 'failed'

/** A receipt as stored by the gateway. */
export interface Receipt {
  readonly id: string
  readonly device: string
  /** The user, if known. */
  readonly user?: string
  readonly status: ReceiptStatus
  readonly time: string
  readonly detail?: string
}

/** Iterations share the events: the next one gets those that the last one left. */
export interface Client extends AsyncIterable<PushEvent> {
  readonly state: ClientState
  /** The position that was reached, for a later client. With iterations, use the id of the last event instead. */
  readonly cursor: string | undefined
  /** The topic filters that are subscribed to. */
  readonly topics: readonly string[]

  /** Subscribes to further topics, without missing events of the others. */
  subscribe(...topics: string[]): void
  unsubscribe(...topics: string[]): void

  /**
   * Publishes exactly once. Retried for 30 seconds while there is no response.
   *
   * @returns the id of the event; `null` if push does not cover this topic
   * @throws {PushError}
   */
  publish(
    topic: string,
    payload: string | Uint8Array,
    options?: PublishOptions,
  ): Promise<{ readonly id: string | null }>

  /**
   * Sends a receipt for an event. Retried until there is a response, or the client is closed.
   *
   * @param detail text, at most 1 KiB
   * @throws {PushError}
   */
  receipt(id: string, status: ReceiptStatus, detail?: string): Promise<Receipt>

  /**
   * Publishes to this connection's own topic, `socket/<connection>/in`.
   *
   * @throws {PushError} `no-socket` with another transport; `network` if the connection is lost before the response
   */
  send(payload: string | Uint8Array): Promise<void>

  /** Starts the next attempt at once. */
  tryNow(): void
  /** Closes the client permanently. Idempotent. */
  close(): void
}
