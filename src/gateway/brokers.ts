import { resolve } from 'node:path'
import type { Logger } from '../base/log.js'
import type { Broker } from '../broker/broker.js'
import type { EmbeddedBroker, EmbeddedHooks } from '../broker/embedded/embedded.js'
import type { ProbeOptions } from '../broker/probe.js'
import { createUpstream } from '../broker/upstream/upstream.js'
import { type BrokerConfig, type Config, retainedBytesOf, upstreamAt } from '../config/schema.js'
import type { ProbedBroker } from '../server/readiness.js'

/** The brokers that a configuration may use, as in `Brokers`. */
function keysOf({ broker, tunnels }: Config): ReadonlySet<string> {
  return new Set([broker, ...tunnels.map(tunnel => tunnel.broker ?? broker)].map(wanted => JSON.stringify(wanted)))
}

/** A broker with its readiness probe. */
interface OpenBroker {
  readonly broker: Broker
  readonly probed: ProbedBroker
}

/** The brokers that the configuration names, each constructed once. */
export class Brokers {
  readonly #config: Config
  readonly #cwd: string
  readonly #log: Logger
  readonly #hooks: EmbeddedHooks
  /** By their configuration. */
  readonly #brokers = new Map<string, Promise<OpenBroker>>()
  /** The same once they are open. */
  readonly #open = new Map<string, OpenBroker>()
  #embedded: Promise<EmbeddedBroker> | undefined
  #openEmbedded: EmbeddedBroker | undefined

  constructor(config: Config, cwd: string, log: Logger, hooks: EmbeddedHooks) {
    this.#config = config
    this.#cwd = cwd
    this.#log = log
    this.#hooks = hooks
  }

  /** The open brokers of a configuration with their readiness probes. */
  probedOf(config: Config): ProbedBroker[] {
    const keys = keysOf(config)
    return [...this.#open].flatMap(([key, { probed }]) => (keys.has(key) ? probed : []))
  }

  /** @throws {StartError} if its files or its data directory cannot be used */
  async get(wanted: BrokerConfig): Promise<Broker> {
    const key = JSON.stringify(wanted)
    const creating = this.#brokers.get(key) ?? this.#create(wanted)
    this.#brokers.set(key, creating)
    try {
      const created = await creating
      if (this.#brokers.get(key) === creating) this.#open.set(key, created)
      return created.broker
    } catch (error) {
      // With other files, it may succeed.
      if (this.#brokers.get(key) === creating) this.#brokers.delete(key)
      throw error
    }
  }

  /**
   * Forgets the brokers that are not those of a configuration. The built-in one stays open.
   *
   * @returns the others of them, to be closed
   */
  retain(config: Config): Broker[] {
    const keys = keysOf(config)
    const dropped = [...this.#open].filter(([key]) => !keys.has(key))
    for (const [key] of dropped) {
      this.#open.delete(key)
      this.#brokers.delete(key)
    }
    return dropped.flatMap(([, { broker }]) => (broker === this.#openEmbedded ? [] : broker))
  }

  /** The built-in broker, once `embedded` has resolved. */
  get openEmbedded(): EmbeddedBroker | undefined {
    return this.#openEmbedded
  }

  embedded(): Promise<EmbeddedBroker> {
    this.#embedded ??= this.#createEmbedded()
    return this.#embedded
  }

  async #create(wanted: BrokerConfig): Promise<OpenBroker> {
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

  #probe(broker: Broker, credentials: ProbeOptions): OpenBroker {
    const probe = async (): Promise<number> => {
      const failure = broker === this.#openEmbedded && this.#openEmbedded.storageFailure
      if (failure) throw new Error(`sessions and retained messages cannot be written: ${failure}`)
      // Imported with the first readiness check: a plain tunnel needs no MQTT parser.
      const { probeBroker } = await import('../broker/probe.js')
      return probeBroker(broker, credentials)
    }
    return { broker, probed: { name: broker.name, probe } }
  }

  async close(): Promise<void> {
    const opened = await Promise.allSettled(this.#brokers.values())
    const brokers = opened.flatMap(result => (result.status === 'fulfilled' ? result.value.broker : []))
    if (this.#openEmbedded && !brokers.includes(this.#openEmbedded)) brokers.push(this.#openEmbedded)
    await Promise.allSettled(brokers.map(broker => broker.close()))
  }
}
