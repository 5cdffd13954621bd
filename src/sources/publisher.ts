import type { Event } from '../journal/event.js'
import type { Message } from '../mqtt/message.js'

/** How long a publication may take until it is in the journal, where nothing else is said; in milliseconds. */
export const usualPublishTime = 10_000

/** What publishes: to the broker, and so to everybody, MQTT clients too. */
export interface Publisher {
  /** Whether the broker can be reached just now. */
  readonly connected: boolean
  /**
   * Publishes a message, and waits until it has come back and is in the journal.
   *
   * @returns its event; `undefined` where push does not get its topic, and the broker has it
   * @throws {Ending} rejects with `broker-away`, `publish-timeout`, `journal-unavailable`, or `topic-refused` and
   *   `body-too-large` (the broker's own rules); it was not published, except after `publish-timeout`, where nobody knows
   */
  publish(message: Message, options?: PublishOptions): Promise<Event | undefined>
}

/** How a message is published, where that is not as usual. */
export interface PublishOptions {
  /** The user or address that publishes; left out for mqway itself. Each has a share of what may be on its way to the broker. */
  readonly by?: string
  /**
   * How long to wait for the message, in milliseconds, beyond the time that everybody waits: until it has come back; from
   * then on, for as long as the journal takes. Where too many are waited for so, the oldest are given up.
   */
  readonly patience?: number
}
