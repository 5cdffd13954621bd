import { setImmediate as nextTick } from 'node:timers/promises'
import type { AedesPublishPacket } from 'aedes'
import type { TimeSlicer } from '../../base/time-slicer.js'
import { propertyBytes, withSubscriptionIdentifiers } from './packet.js'
import type { SessionSubscription } from './queue-index.js'
import type { QueuedMessage, SessionQueues } from './session-queues.js'
import type { Sessions } from './sessions.js'
import type { PendingWrite } from './unwritten-messages.js'

type Subscriber = Pick<SessionSubscription, 'clientId'> & Partial<SessionSubscription>

/** Disconnected sessions for which a message is queued at once; for more, it is queued in time slices. */
const maxAtOnce = 100

/** Sessions between two checks of the clock. */
const batch = 64

/** A message being queued for many disconnected sessions. */
interface Job {
  readonly message: Variants
  /** `undefined` if it was brought forward. */
  readonly subscribers: (Subscriber | undefined)[]
  position: number
  /** The last write. */
  writing: Promise<unknown>
}

/** Bytes of a queued message besides its payload and properties, approximately. */
const recordOverhead = 200

export interface SessionEnqueuerOptions {
  readonly queues: SessionQueues
  readonly sessions: Pick<Sessions, 'isConnected' | 'admitMessage' | 'release'>
  readonly slicer: TimeSlicer
  /** Notes that a message queued for a session expires. */
  readonly onExpiring: (clientId: string, expires: number) => void
}

/**
 * Queues messages for sessions before their delivery; for many disconnected sessions in time slices during it. A returning client finds all
 * earlier messages in its queue, in order.
 */
export class SessionEnqueuer {
  readonly #options: SessionEnqueuerOptions
  readonly #jobs = new Set<Job>()
  #latest: PendingWrite | undefined

  constructor(options: SessionEnqueuerOptions) {
    this.#options = options
  }

  /**
   * Queues a message; resolves when it may be delivered. See `takeWrites` for the acknowledgement.
   *
   * @param onWriting called when all writes of the message have begun, in the same tick; not if it is queued in time slices
   */
  async enqueue(
    subscribers: readonly Subscriber[],
    packet: AedesPublishPacket,
    onWriting: () => void = () => {},
  ): Promise<void> {
    if (subscribers.length === 0) return
    const { queues, sessions } = this.#options
    const message = new Variants(packet, queues)
    const absent = subscribers.filter(({ clientId }) => !sessions.isConnected(clientId))
    if (absent.length <= maxAtOnce) {
      const adding = this.#addNow(subscribers, message, undefined)
      onWriting()
      await adding
      return
    }
    const job: Job = { message, subscribers: absent, position: 0, writing: Promise.resolve() }
    this.#jobs.add(job)
    const running = this.#run(job)
    // The acknowledgement gets the error.
    running.catch(() => {})
    const present = subscribers.filter(({ clientId }) => sessions.isConnected(clientId))
    await this.#addNow(present, message, running)
  }

  /** In memory, resolves when done; on disk, queues can be read at once, and are written meanwhile. */
  async #addNow(
    subscribers: readonly Subscriber[],
    message: Variants,
    running: Promise<void> | undefined,
  ): Promise<void> {
    const adding = this.#add(subscribers, message)
    if (this.#options.queues.isMemory) {
      await adding
      if (running) this.#latest = { written: running, bytes: 0, isForMany: true }
      return
    }
    adding.catch(() => {})
    const written = running ? Promise.all([adding, running]).then(() => {}) : adding
    written.catch(() => {})
    this.#latest = {
      written,
      bytes: (message.bytes + recordOverhead) * subscribers.length,
      isForMany: running !== undefined,
    }
  }

  /** Writes of the last enqueued message, once. */
  takeWrites(): PendingWrite | undefined {
    const latest = this.#latest
    this.#latest = undefined
    return latest
  }

  /** Queues delivered messages at once for a session whose client is back. */
  async bringForward(clientId: string): Promise<void> {
    for (const job of [...this.#jobs]) {
      const index = job.subscribers.findIndex(subscriber => subscriber?.clientId === clientId)
      const subscriber = job.subscribers[index]
      if (index < job.position || !subscriber) {
        await job.writing.catch(() => {})
        continue
      }
      job.subscribers[index] = undefined
      await this.#add([subscriber], job.message)
    }
  }

  async #run(job: Job): Promise<void> {
    const { slicer } = this.#options
    try {
      while (job.position < job.subscribers.length) {
        await slicer.next('sessions')
        const writes: Promise<void>[] = []
        do {
          const next = job.subscribers.slice(job.position, job.position + batch)
          job.position += batch
          writes.push(this.#add(next, job.message))
        } while (job.position < job.subscribers.length && !slicer.isOver)
        job.writing = Promise.all(writes)
        await job.writing
        // Two event-loop ticks without a slice: others' round trips take several.
        await nextTick()
        await nextTick()
      }
    } finally {
      this.#jobs.delete(job)
    }
  }

  async #add(subscribers: readonly (Subscriber | undefined)[], message: Variants): Promise<void> {
    const { sessions, onExpiring } = this.#options
    const { expires } = message
    const admitted = new Map<QueuedMessage, string[]>()
    for (const subscriber of subscribers) {
      if (!subscriber) continue
      const variant = message.for(subscriber)
      if (!sessions.admitMessage(subscriber.clientId, variant.bytes, variant.topic)) continue
      if (expires !== undefined) onExpiring(subscriber.clientId, expires)
      const clientIds = admitted.get(variant)
      if (clientIds) clientIds.push(subscriber.clientId)
      else admitted.set(variant, [subscriber.clientId])
    }
    await Promise.all([...admitted].map(([variant, clientIds]) => this.#write(variant, clientIds)))
  }

  async #write(variant: QueuedMessage, clientIds: readonly string[]): Promise<void> {
    try {
      await variant.add(clientIds)
    } catch (error) {
      for (const clientId of clientIds) this.#options.sessions.release(clientId, variant.bytes)
      throw error
    }
  }
}

/** One message in the forms for different subscribers, each created once. */
class Variants {
  readonly #packet: AedesPublishPacket
  readonly #queues: SessionQueues
  readonly #made = new Map<number | string, QueuedMessage>()

  /** Bytes of the payload and properties, shared by all forms. */
  readonly bytes: number
  readonly expires: number | undefined

  constructor(packet: AedesPublishPacket, queues: SessionQueues) {
    this.#packet = detachPayload(packet)
    this.bytes = packet.payload.length + propertyBytes(packet)
    this.expires = packet.messageExpiry
    this.#queues = queues
  }

  /**
   * With the lower of the published and the subscribed QoS [MQTT-3.8.4-6], and without RETAIN, because the subscription exists
   * [MQTT-3.3.1-9], except for a bridge and retain as published [MQTT-3.3.1-13]; with the identifiers of the subscriptions.
   */
  for(subscriber: Subscriber): QueuedMessage {
    const qos = lower(this.#packet.qos, subscriber.qos ?? 2)
    const retain = this.#packet.retain && subscriber.rap === true
    const { subscriptionIdentifiers: ids = [] } = subscriber
    const options = retain ? qos + 3 : qos
    const key = ids.length > 0 ? `${options}:${ids.join()}` : options
    const known = this.#made.get(key)
    if (known) return known
    const packet = { ...this.#packet, qos, retain }
    const made = this.#queues.prepare(ids.length > 0 ? withSubscriptionIdentifiers(packet, ids) : packet)
    this.#made.set(key, made)
    return made
  }
}

function lower<QoS extends 0 | 1 | 2>(a: QoS, b: QoS): QoS {
  return a < b ? a : b
}

/** Copies a payload that is a small slice of a 64 KiB read, which it would keep in memory; the parser has copied the properties. */
export function detachPayload(packet: AedesPublishPacket): AedesPublishPacket {
  const { payload } = packet
  if (typeof payload === 'string' || payload.buffer.byteLength <= 2 * payload.length) return packet
  return { ...packet, payload: Buffer.from(payload) }
}
