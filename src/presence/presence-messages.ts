import { type MessageCounters, MessageQueue, type MessageQueueOptions } from './message-queue.js'
import type { ListenerTransport } from './presence.js'

/** A listener has joined or left a filter. */
export interface PresenceChange {
  readonly event: 'join' | 'leave'
  readonly device: string
  readonly user: string | undefined
  readonly transport: ListenerTransport
  readonly filter: string
  /** In milliseconds since 1970. */
  readonly time: number
  /** Listeners with this filter now. */
  readonly count: number
  /** The quota key of the listener. */
  readonly account?: string
}

/** Bytes of a queued change without its filter. */
const overhead = 200

const prefix = 'presence/'

/** The topic of a filter's joins and leaves: `presence/` and the filter, with `%`, `+` and `#` percent-encoded. */
export function presenceTopic(filter: string): string {
  return prefix + filter.replaceAll('%', '%25').replaceAll('+', '%2B').replaceAll('#', '%23')
}

/** Publishes joins and leaves as MQTT messages of QoS 0, in order; dropped ones are not published later. */
export class PresenceMessages {
  readonly #queue: MessageQueue<PresenceChange>

  constructor(options: MessageQueueOptions) {
    const topicOf = ({ filter }: PresenceChange): string => presenceTopic(filter)
    const accountOf = ({ account = '' }: PresenceChange): string => account
    this.#queue = new MessageQueue({ topicOf, payloadOf: encode, accountOf, sizeOf }, options)
  }

  get counters(): MessageCounters {
    return this.#queue.counters
  }

  /** Queues a change; not those of `presence/…` itself, and of filters that begin with `$`. */
  publish(change: PresenceChange): void {
    if (!change.filter.startsWith(prefix) && !change.filter.startsWith('$')) this.#queue.publish(change)
  }

  /** Resolves once nothing waits or is being published. */
  drained(): Promise<void> {
    return this.#queue.drained()
  }

  /** Stops; the queue is dropped. */
  close(): void {
    this.#queue.close()
  }
}

function sizeOf({ filter }: PresenceChange): number {
  return overhead + filter.length
}

function encode({ event, device, user, transport, filter, time, count }: PresenceChange): Buffer {
  const at = new Date(time).toISOString()
  return Buffer.from(JSON.stringify({ event, device, user, transport, topic: filter, time: at, count }))
}
