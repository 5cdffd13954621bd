import { setTimeout as delay } from 'node:timers/promises'
import type { IPublishPacket } from 'mqtt-packet'
import { type Journal, sizeOf } from '../../journal/journal.js'
import type { Connection } from '../../mqtt/connection.js'
import type { Message } from '../../mqtt/message.js'
import { messageOf } from '../../mqtt/message-of.js'
import { type Digests, digest, readDigests } from '../retained-digests.js'

/**
 * How long nothing more has to come until all has, in milliseconds: mosquitto answers a ping behind all of it, and others
 * look for it on their disks meanwhile.
 */
const quiet = 300
/** How many times that is waited for, at most. */
const mostWaits = 100
/** Topics that are asked for by their names at once: brokers bound how many may wait for one client. */
const namesAtOnce = 100
/** Bytes that may wait until it is known that they are news. */
const mostHeld = 16 * 1024 ** 2

/** What a check needs. */
export interface RetainedReconcilerOptions {
  readonly topics: readonly string[]
  readonly journal: Pick<Journal, 'retained' | 'head'>
  /** The connection over which push gets what is published. */
  readonly reading: Pick<Connection, 'ping'>
  /** Makes another one, over which RETAIN says of a message that it is state, and not that it was published with it. */
  readonly open: (onMessage: (packet: IPublishPacket) => void) => Promise<Connection>
  /** Called with each message that made a state which the journal does not have. */
  readonly onMissed: (message: Message) => void
}

/**
 * Compares what the broker retains with what the journal does. They differ where a message was published with QoS 0 while
 * push was away: the broker kept its state, and not the message.
 *
 * That takes a connection of its own. Where the session is subscribed once more, it gets its state among what was kept for
 * it, and what is of QoS 0 before that; and mosquitto sends a subscription of QoS 1 no more than 1020 retained messages, and
 * drops what is published meanwhile for them.
 */
export class RetainedReconciler {
  readonly #options: RetainedReconcilerOptions
  /** Topics with news, which are none of its business. */
  readonly #changed = new Set<string>()
  /** The states that the journal has, or is told of. */
  #states: Digests = new Map()
  /** Topics of the journal's of which the broker has said nothing yet. */
  #unseen = new Set<string>()
  #held: Message[] = []
  #heldBytes = 0
  #count = 0
  #probe: Connection | undefined
  #stopped = false

  constructor(options: RetainedReconcilerOptions) {
    this.#options = options
  }

  /** Call for each message that push gets while it runs and that may be a state. */
  changed(topic: string): void {
    this.#changed.add(topic)
  }

  /**
   * Call when what the broker kept has come, and all that came is in the journal.
   *
   * @throws {Error} rejects when a connection ends, or the broker refuses something
   */
  async run(): Promise<void> {
    const { topics, journal, open } = this.#options
    this.#states = await readDigests(journal, topics)
    this.#unseen = new Set(this.#states.keys())
    const probe = await open(packet => this.#receive(packet))
    this.#probe = probe
    try {
      if (this.#stopped) return
      const refused = await probe.subscribe(topics, 0)
      if (refused.length > 0) throw new Error(`the broker does not let push subscribe to ${refused.join(', ')}`)
      await probe.ping()
      await this.#tell()
      await this.#untilQuiet(probe)
      await probe.unsubscribe(topics)
      await this.#askByName(probe)
      await this.#tell()
      for (const topic of this.#unseen) this.#tellOf(cleared(topic))
    } finally {
      await probe.end()
    }
  }

  stop(): void {
    this.#stopped = true
    this.#probe?.destroy(new Error('the session was closed'))
  }

  /** Brokers may leave some out where there are many; one that does not come alone either is gone. */
  async #askByName(probe: Connection): Promise<void> {
    const topics = [...this.#unseen]
    for (let at = 0; at < topics.length; at += namesAtOnce) {
      const some = topics.slice(at, at + namesAtOnce)
      for (const topic of await probe.subscribe(some, 0)) this.#unseen.delete(topic)
      await probe.ping()
      await probe.unsubscribe(some)
    }
    if (topics.length > 0) await this.#untilQuiet(probe)
  }

  #receive(packet: IPublishPacket): void {
    if (!packet.retain) return
    this.#count++
    const message = messageOf(packet)
    const state = digest(message.payload)
    this.#unseen.delete(message.topic)
    // It comes once for each filter that matches it.
    if (this.#states.get(message.topic) === state) return
    this.#states.set(message.topic, state)
    this.#held.push(message)
    this.#heldBytes += sizeOf(message)
    if (this.#heldBytes < mostHeld) return
    this.#probe?.pause()
    this.#tell().then(
      () => this.#probe?.resume(),
      () => {},
    )
  }

  /** Tells of what is held, when all that was published before has come: it may be among that. */
  async #tell(): Promise<void> {
    const held = this.#held
    this.#held = []
    this.#heldBytes = 0
    await this.#options.reading.ping()
    for (const message of held) this.#tellOf(message)
  }

  #tellOf(message: Message): void {
    if (!this.#stopped && !this.#changed.has(message.topic)) this.#options.onMissed(message)
  }

  async #untilQuiet(probe: Connection): Promise<void> {
    for (let waits = 0; waits < mostWaits; waits++) {
      const before = this.#count
      await delay(quiet, undefined, { ref: false })
      await probe.ping()
      if (this.#count === before) return
    }
    throw new Error('the broker does not come to an end with what is retained')
  }
}

/** What removes a retained message [MQTT-3.3.1-10]. */
function cleared(topic: string): Message {
  return { topic, payload: Buffer.alloc(0), qos: 0, retain: true }
}
