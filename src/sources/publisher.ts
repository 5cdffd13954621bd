import type { AcknowledgementWatch } from '../broker/embedded/acknowledgement-tracker.js'
import type { Event } from '../journal/event.js'
import type { Message } from '../mqtt/message.js'

/** Time limit from a publish to its event in the journal, in milliseconds, by default. */
export const defaultPublishTimeout = 10_000

/** Publishes messages at the broker, for MQTT clients and the journal. */
export interface Publisher {
  readonly connected: boolean
  /**
   * Publishes a message and waits for its event in the journal.
   *
   * @returns its event; `undefined` where push is not subscribed to its topic, and the broker has it
   * @throws {GatewayError} rejects with `broker-away`, `publish-timeout`, `journal-unavailable`, or with the broker's refusals `topic-refused`
   *   and `body-too-large`. The message was not published, except that after `publish-timeout` it may have been
   */
  publish(message: Message, options?: PublishOptions): Promise<Event | undefined>
}

/** A source of the journal's events: appends the broker's messages to the journal, and publishes at the broker. */
export interface Source extends Publisher {
  /** Why it is not connected, with the broker's address; `undefined` while it is. */
  readonly failure: string | undefined
  /**
   * Resolves when responses to requests arrive at its `ResponseInbox`.
   *
   * @throws {GatewayError} rejects with `broker-away`, or with `requests-unsupported` at a broker that has no response topics
   */
  receiveResponses(): Promise<void>
  /**
   * Appends messages on other topics from now on. Resolves when it has subscribed to them, or will when it is connected; failures are logged. Never rejects.
   *
   * @param topics valid topic filters
   */
  changeTopics(topics: readonly string[]): Promise<void>
  /** Appends the received messages and ends. Idempotent. */
  close(): Promise<void>
}

export interface PublishOptions {
  /**
   * Called for each client of the embedded broker that acknowledges the message (PUBACK or PUBCOMP), also before its event is in the journal.
   */
  readonly acknowledgements?: AcknowledgementWatch | undefined
  /** The publishing user or address, for its quota; left out for the gateway itself. */
  readonly by?: string
  /**
   * Additional time limit, in milliseconds, until the broker returns the message; after that, the journal may take any time. The oldest such publishes
   * fail where there are too many.
   */
  readonly extraTimeout?: number
}
