import type { ClientWatcher, ConnectedClient } from '../base/connected-clients.js'
import type { ErrorReason } from '../base/errors.js'
import { type MessageCounters, MessageQueue, type MessageQueueOptions } from './message-queue.js'

/** A client has connected or disconnected. */
interface ClientChange {
  readonly event: 'connected' | 'disconnected'
  readonly clientId: string
  readonly account: string
  /** The other members of the message. */
  readonly details: object
}

export interface ClientMessagesOptions extends MessageQueueOptions {
  /** Quota key of a client. */
  readonly accountOf: (user: string | undefined, address: string) => string
}

/** Bytes of a queued change without its client id. */
const overhead = 500

/** Characters of a client id that a level of a topic must not have: `hasForbiddenCharacter`, `/`, wildcards, and `%`, which encodes them. */
const encoded = /[%+#/\p{Cc}\p{Noncharacter_Code_Point}]/gu

/** The topic of an event of a client: its id is one level, percent-encoded as in presence topics, with `/` and control characters, too. */
export function clientTopic(clientId: string, event: ClientChange['event']): string {
  // No single surrogates come out of UTF-8, so this does not throw.
  return `clients/${clientId.replaceAll(encoded, encodeURIComponent)}/${event}`
}

/** Publishes connected and disconnected clients as MQTT messages of QoS 0, in order; dropped ones are not published later. */
export class ClientMessages implements ClientWatcher {
  readonly #queue: MessageQueue<ClientChange>
  readonly #accountOf: ClientMessagesOptions['accountOf']

  constructor({ accountOf, ...options }: ClientMessagesOptions) {
    this.#accountOf = accountOf
    this.#queue = new MessageQueue(
      {
        topicOf: ({ clientId, event }) => clientTopic(clientId, event),
        payloadOf: ({ event, clientId, details }) => Buffer.from(JSON.stringify({ event, clientId, ...details })),
        accountOf: ({ account }) => account,
        sizeOf: ({ clientId }) => overhead + 2 * clientId.length,
      },
      options,
    )
  }

  get counters(): MessageCounters {
    return this.#queue.counters
  }

  connected(client: ConnectedClient): void {
    this.#publish('connected', client, {})
  }

  /** When the gateway ends, no message is sent. */
  disconnected(client: ConnectedClient, reason: ErrorReason): void {
    if (reason === 'shutting-down') return
    const seconds = Math.round((Date.now() - client.since) / 1000)
    this.#publish('disconnected', client, { reason, seconds })
  }

  /** Stops; the queue is dropped. */
  close(): void {
    this.#queue.close()
  }

  /** Without addresses of clients and brokers, and without the user name of the CONNECT, which is a token for some brokers: anybody may subscribe. */
  #publish(event: ClientChange['event'], client: ConnectedClient, more: object): void {
    const { clientId, connection, user, protocolVersion, transport, path } = client
    const time = new Date().toISOString()
    const details = { connection, user, protocolVersion, transport, path, time, ...more }
    this.#queue.publish({ event, clientId, account: this.#accountOf(user, client.address), details })
  }
}
