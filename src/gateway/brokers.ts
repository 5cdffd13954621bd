import { resolve } from 'node:path'
import type { Logger } from '../base/log.js'
import type { Broker } from '../broker/broker.js'
import type { EmbeddedBroker, EmbeddedHooks } from '../broker/embedded/embedded.js'
import type { ProbeOptions } from '../broker/probe.js'
import { createUpstream } from '../broker/upstream/upstream.js'
import { type BrokerConfig, type Config, retainedBytesOf, upstreamAt } from '../config/schema.js'
import type { ProbedBroker } from '../server/readiness.js'

/** The brokers that the configuration names, each constructed once. */
export class Brokers {
  /** Every broker with its readiness probe. */
  readonly probed: ProbedBroker[] = []
  readonly #config: Config
  readonly #cwd: string
  readonly #log: Logger
  readonly #hooks: EmbeddedHooks
  readonly #brokers = new Map<string, Promise<Broker>>()
  #embedded: Promise<EmbeddedBroker> | undefined
  #openEmbedded: EmbeddedBroker | undefined

  constructor(config: Config, cwd: string, log: Logger, hooks: EmbeddedHooks) {
    this.#config = config
    this.#cwd = cwd
    this.#log = log
    this.#hooks = hooks
  }

  /** @throws {StartError} if its files or its data directory cannot be used */
  get(wanted: BrokerConfig): Promise<Broker> {
    const key = JSON.stringify(wanted)
    const broker = this.#brokers.get(key) ?? this.#create(wanted)
    this.#brokers.set(key, broker)
    return broker
  }

  /** The built-in broker, once `embedded` has resolved. */
  get openEmbedded(): EmbeddedBroker | undefined {
    return this.#openEmbedded
  }

  embedded(): Promise<EmbeddedBroker> {
    this.#embedded ??= this.#createEmbedded()
    return this.#embedded
  }

  async #create(wanted: BrokerConfig): Promise<Broker> {
    if (wanted === 'embedded') return this.#probe(await this.embedded(), {})
    const { username, password, ...upstream } = typeof wanted === 'string' ? upstreamAt(wanted) : wanted
    return this.#probe(createUpstream(upstream, this.#log), { username, password })
  }

  async #createEmbedded(): Promise<EmbeddedBroker> {
    const { data, embedded, limits } = this.#config
    // Imported on demand: a plain tunnel needs no built-in broker.
    const { createEmbedded } = await import('../broker/embedded/embedded.js')
    const { topicLevels, topicLength } = limits
    const directory = data === 'none' ? data : resolve(this.#cwd, data)
    // Longer than the tunnel's timeout, whose close reason is more precise.
    const connectTimeout = limits.connectTimeout + 1000
    const maxRetainedBytes = retainedBytesOf(this.#config)
    const options = { ...embedded, maxRetainedBytes, topicLevels, topicLength, connectTimeout, data: directory }
    this.#openEmbedded = await createEmbedded(options, this.#log, this.#hooks)
    return this.#openEmbedded
  }

  #probe(broker: Broker, credentials: ProbeOptions): Broker {
    const probe = async (): Promise<number> => {
      const failure = broker === this.#openEmbedded && this.#openEmbedded.storageFailure
      if (failure) throw new Error(`sessions and retained messages cannot be written: ${failure}`)
      // Imported with the first readiness check: a plain tunnel needs no MQTT parser.
      const { probeBroker } = await import('../broker/probe.js')
      return probeBroker(broker, credentials)
    }
    this.probed.push({ name: broker.name, probe })
    return broker
  }

  async close(): Promise<void> {
    const brokers = await Promise.allSettled(this.#brokers.values())
    await Promise.allSettled(brokers.map(result => (result.status === 'fulfilled' ? result.value.close() : undefined)))
  }
}
