import { setTimeout as delay } from 'node:timers/promises'
import { type Journal, sizeOf } from '../../journal/journal.js'
import type { Connection } from '../../mqtt/connection.js'
import type { Message } from '../../mqtt/message.js'
import type { ReceivedMessage } from '../../mqtt/publish-packet.js'
import { type Digests, digest, readDigests } from '../retained-digests.js'

/**
 * All retained messages have arrived after this time without one, in milliseconds: mosquitto answers a ping after all of them, other brokers
 * meanwhile read them from disk.
 */
const quietTime = 300
/** Maximum number of such waits. */
const maxWaits = 100
/** Topics that are requested by name at once: brokers bound the messages that wait for a client. */
const namesAtOnce = 100
/** Bytes of messages that wait for the comparison. */
const maxHeldBytes = 16 * 1024 ** 2

export interface RetainedReconcilerOptions {
  readonly topics: readonly string[]
  readonly journal: Pick<Journal, 'retained' | 'head'>
  /** The connection over which push receives live messages. */
  readonly inbound: Pick<Connection, 'ping'>
  /** Opens another connection, on which RETAIN marks retained messages only. */
  readonly open: (onMessage: (message: ReceivedMessage) => void) => Promise<Connection>
  /** Called with each retained message that the journal lacks. */
  readonly onMissed: (message: Message) => void
}

/**
 * Compares the broker's retained messages with the journal's. They differ where a message was published with QoS 0 while push was
 * disconnected: the broker keeps it as retained, but not in push's session.
 *
 * It takes a connection of its own: subscribing again on the session's would mix retained messages with queued ones, and mosquitto sends a
 * subscription of QoS 1 at most 1020 retained messages and drops live ones for them.
 */
export class RetainedReconciler {
  readonly #options: RetainedReconcilerOptions
  /** Topics whose retained message changed meanwhile. */
  readonly #changed = new Set<string>()
  /** The journal's retained messages, and those passed to `onMissed`. */
  #digests: Digests = new Map()
  /** The journal's topics that the broker has not sent. */
  #unseen = new Set<string>()
  #held: Message[] = []
  #heldBytes = 0
  #received = 0
  #probe: Connection | undefined
  #stopped = false

  constructor(options: RetainedReconcilerOptions) {
    this.#options = options
  }

  /** Call for each live message that may be retained. */
  changed(topic: string): void {
    this.#changed.add(topic)
  }

  /**
   * Compares. Call when the broker's queued messages have been received and written.
   *
   * @throws {Error} rejects when a connection ends, or the broker refuses a subscription
   */
  async run(): Promise<void> {
    const { topics, journal, open } = this.#options
    this.#digests = await readDigests(journal, topics)
    this.#unseen = new Set(this.#digests.keys())
    const probe = await open(packet => this.#receive(packet))
    this.#probe = probe
    try {
      if (this.#stopped) return
      const refused = await probe.subscribe(topics, 0)
      if (refused.length > 0) throw new Error(`the broker refused push's subscription to ${refused.join(', ')}`)
      await probe.ping()
      await this.#flush()
      await this.#untilQuiet(probe)
      await probe.unsubscribe(topics)
      await this.#requestByName(probe)
      await this.#flush()
      for (const topic of this.#unseen) this.#report(cleared(topic))
    } finally {
      await probe.end()
    }
  }

  stop(): void {
    this.#stopped = true
    this.#probe?.destroy(new Error('the session was closed'))
  }

  /** Brokers may leave out some of many; a topic without a message in a subscription by name is cleared. */
  async #requestByName(probe: Connection): Promise<void> {
    const topics = [...this.#unseen]
    for (let start = 0; start < topics.length; start += namesAtOnce) {
      const batch = topics.slice(start, start + namesAtOnce)
      for (const topic of await probe.subscribe(batch, 0)) this.#unseen.delete(topic)
      await probe.ping()
      await probe.unsubscribe(batch)
    }
    if (topics.length > 0) await this.#untilQuiet(probe)
  }

  #receive(message: ReceivedMessage): void {
    if (!message.retain) return
    this.#received++
    const current = digest(message.payload)
    this.#unseen.delete(message.topic)
    // The broker sends it once for each matching filter.
    if (this.#digests.get(message.topic) === current) return
    this.#digests.set(message.topic, current)
    this.#held.push(message)
    this.#heldBytes += sizeOf(message)
    if (this.#heldBytes < maxHeldBytes) return
    this.#probe?.pause()
    this.#flush().then(
      () => this.#probe?.resume(),
      () => {},
    )
  }

  /** Reports the held messages after a ping: all live messages published before have arrived, and may include them. */
  async #flush(): Promise<void> {
    const held = this.#held
    this.#held = []
    this.#heldBytes = 0
    await this.#options.inbound.ping()
    for (const message of held) this.#report(message)
  }

  #report(message: Message): void {
    if (!this.#stopped && !this.#changed.has(message.topic)) this.#options.onMissed(message)
  }

  async #untilQuiet(probe: Connection): Promise<void> {
    for (let waits = 0; waits < maxWaits; waits++) {
      const before = this.#received
      await delay(quietTime, undefined, { ref: false })
      await probe.ping()
      if (this.#received === before) return
    }
    throw new Error('the broker keeps sending retained messages')
  }
}

/** Removes a retained message [MQTT-3.3.1-10]. */
function cleared(topic: string): Message {
  return { topic, payload: Buffer.alloc(0), qos: 0, retain: true }
}
