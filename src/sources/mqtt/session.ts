import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import { LogRate } from '../../base/log-rate.js'
import type { PushConfig } from '../../config/push.js'
import type { Event } from '../../journal/event.js'
import { type Journal, sizeOf } from '../../journal/journal.js'
import type { RedisJournal } from '../../journal/redis-journal.js'
import { ConnectionRefusal, TakenOver } from '../../mqtt/broker-responses.js'
import { Connection, type ConnectionOptions } from '../../mqtt/connection.js'
import { type Message, requirePublishable } from '../../mqtt/message.js'
import { ProtocolNegotiator } from '../../mqtt/protocol-negotiator.js'
import { type ProtocolProfile, withoutRetainAsPublished } from '../../mqtt/protocol-profile.js'
import type { ReceivedMessage } from '../../mqtt/publish-packet.js'
import { ReconnectingConnection } from '../../mqtt/reconnecting-connection.js'
import { Lease } from '../../storage/lease.js'
import { topicPredicate } from '../../topics/match.js'
import { isResponseTopic } from '../../topics/response-topic.js'
import { defaultPublishTimeout, type PublishOptions, type Source } from '../publisher.js'
import { RememberedSubscriptions } from '../remembered-subscriptions.js'
import { type ResponseInbox, unretainedResponse } from '../response-inbox.js'
import { BrokerSubscription, type BrokerSubscriptionOptions } from './broker-subscription.js'
import { openClientId, randomClientId } from './client-id.js'
import { Deliveries } from './deliveries.js'
import { LearnedSizeLimit } from './learned-size-limit.js'
import { PendingPublishes } from './pending-publishes.js'
import { rememberIn } from './shared-subscriptions.js'
import { TakeoverDetector } from './takeover-detector.js'

export interface SessionOptions {
  /** The broker's address, for the log. */
  readonly brokerName: string
  readonly open: () => Promise<Duplex>
  readonly config: Pick<PushConfig, 'topics' | 'journal' | 'username' | 'password' | 'clientId'>
  /** The data directory, which also identifies the gateway among several on one machine; `undefined` for none. */
  readonly data: string | undefined
  readonly journal: Journal
  /** The same journal, if several gateways share it: then one of them at a time reads the broker. */
  readonly shared?: SharedReading | undefined
  readonly log: Logger
  readonly reservedClientIds?: Set<string> | undefined
  /** Gets responses to requests; left out without any. */
  readonly inbox?: ResponseInbox | undefined
  /** Called when `connected` changes. */
  readonly onStateChange?: ((connected: boolean) => void) | undefined
  /** Time limit from a publish to its event in the journal, in milliseconds. Default: `defaultPublishTimeout`. */
  readonly publishTimeout?: number
}

/** What gateways with one journal agree on. */
export type SharedReading = Pick<RedisJournal, 'fields' | 'failure' | 'hold' | 'release' | 'beginTerm'>

/** A connection that reads, and where its messages go. */
interface Reader {
  readonly subscription: BrokerSubscription
  readonly inbound: ReconnectingConnection
  readonly close: () => void
}

/** Options in which the connections of one session differ. */
type OwnOptions = Pick<ConnectionOptions, 'clientId' | 'clean' | 'onMessage'>

/** Bounds of publishes in progress, and of those beyond their timeout. */
const pendingBounds = { maxCount: 10_000, maxBytes: 64 * 1024 ** 2, maxLate: 1000, maxLateBytes: 16 * 1024 ** 2 }
/** Time limit for CONNACK, in milliseconds. */
const connectTimeout = 10_000
/** In seconds. */
const keepAlive = 30
/** Different connection failures that are logged before the session is connected again. */
const maxLoggedFailures = 10
/** Time limit of `close` for publishes in progress, in milliseconds. */
const closeTimeout = 1000
/** Time limit of the start for the first connection, in milliseconds. */
const startTimeout = 1000

/**
 * Opens a session with a remote broker. It reconnects until it is closed, and never throws because the broker is unavailable.
 *
 * It has two connections, because a broker with RETAIN as published does not send a bridge its own messages. The inbound one has a
 * persistent session if the journal outlives the process.
 *
 * @returns after the first attempt to connect
 */
export async function openSession(options: SessionOptions): Promise<Source> {
  const { config, data, reservedClientIds, shared } = options
  const ownId = (): Promise<string> => openClientId(config.journal === 'level' ? data : undefined)
  const clientId =
    config.clientId ?? (shared ? await shared.fields.setOnce('clientId', randomClientId()) : await ownId())
  // One session for all gateways to read, and one for each to publish.
  const outId = shared ? `${clientId}-out-${randomBytes(4).toString('hex')}` : `${clientId}-out`
  for (const id of [clientId, `${clientId}-state`, outId]) reservedClientIds?.add(id)
  if (shared) await compareTopics(shared, options)
  const session = new BrokerSession(options, clientId, outId)
  await session.attempted
  return session
}

/** Warns of gateways that are configured for different topics: each would change the subscriptions of the one before. */
async function compareTopics({ fields }: SharedReading, { config, log }: SessionOptions): Promise<void> {
  const topics = topicsField(config.topics)
  const others = await fields.get('topics')
  if (others !== undefined && others !== topics) {
    log.warn(
      { topics: config.topics, others },
      'push.topics differ from those of the gateway that started before with this Redis: use the same ones, or another push.journal.redis.prefix',
    )
  }
  await fields.set('topics', topics)
}

function topicsField(topics: readonly string[]): string {
  return JSON.stringify([...topics].sort())
}

class BrokerSession implements Source {
  /** Resolves after the first attempt to connect, or `startTimeout`. */
  readonly attempted: Promise<void>
  readonly #options: SessionOptions
  #topics: readonly string[]
  #matches: (topic: string) => boolean = () => false
  readonly #pending: PendingPublishes
  readonly #sizeLimit = new LearnedSizeLimit()
  readonly #profiles: ProtocolNegotiator
  #clientId: string
  readonly #takeovers: TakeoverDetector
  readonly #warnings = new LogRate()
  /** `undefined` while another gateway reads. */
  #reader: Reader | undefined
  readonly #lease: Lease | undefined
  #unwatch = ignore
  readonly #outbound: ReconnectingConnection
  /** Subscriptions to responses, by outbound connection. */
  readonly #receiving = new WeakMap<Connection, Promise<void>>()
  #onAttempted = ignore
  #connected = false
  /** Reason of the last failed attempt; empty before that. */
  #failure = ''
  readonly #loggedFailures = new Set<string>()
  #closed = false
  #closing: Promise<void> | undefined

  constructor(options: SessionOptions, clientId: string, outId: string) {
    this.#options = options
    const { config, log } = options
    this.#topics = config.topics
    this.#match(config.topics)
    this.#pending = new PendingPublishes({
      ...pendingBounds,
      timeout: options.publishTimeout ?? defaultPublishTimeout,
    })
    this.#profiles = new ProtocolNegotiator(log)
    const attempted = new Promise<void>(resolve => {
      this.#onAttempted = resolve
    })
    this.attempted = Promise.race([attempted, delay(startTimeout, undefined, { ref: false })])
    this.#clientId = clientId
    this.#takeovers = new TakeoverDetector({ clientId, log })
    const { shared } = options
    if (!shared) this.#reader = this.#readAlone()
    this.#outbound = this.#connectOutbound(outId)
    if (shared) {
      this.#unwatch = options.journal.watch(events => this.#onEvents(events))
      this.#lease = this.#competeFor(shared)
    }
  }

  #readAlone(): Reader {
    const { config, data, journal } = this.#options
    return this.#read({
      ...{ journal, pending: this.#pending, clean: config.journal !== 'level', close: ignore },
      remembered: new RememberedSubscriptions(config.journal === 'level' ? data : undefined),
      onDown: (reason, lasted) => this.#takeovers.ended(reason, lasted),
    })
  }

  #competeFor(shared: SharedReading): Lease {
    const { log } = this.#options
    return new Lease({
      hold: (token, duration, how) => shared.hold(token, duration, how),
      release: token => shared.release(token),
      isCandidate: () => this.#outbound.connection !== undefined,
      isWorking: () => this.#reader?.inbound.connection !== undefined,
      onHeld: async token => {
        this.#reader = await this.#readWith(token, shared).catch(error => {
          log.warn({ err: error }, 'failed to begin to read the broker; another gateway may')
          throw error
        })
        log.info('this gateway reads the broker')
        this.#update()
      },
      onLost: async () => {
        const reader = this.#reader
        this.#reader = undefined
        reader?.close()
        if (!this.#closed) log.info('another gateway may read the broker')
        this.#update()
        await reader?.inbound.close()
      },
    })
  }

  async #readWith(token: string, shared: SharedReading): Promise<Reader> {
    const { journal, config } = this.#options
    const term = await shared.beginTerm(token)
    // Stored again where Redis has lost it.
    if (config.clientId === undefined) this.#clientId = await shared.fields.setOnce('clientId', this.#clientId)
    return this.#read({
      journal: {
        append: (message, urgency) => term.append(message, urgency),
        retained: (filters, range) => journal.retained(filters, range),
        get head() {
          return journal.head
        },
      },
      deliveries: new Deliveries(term.deliveries, messageId => term.acknowledged(messageId)),
      // Each gateway recognizes its publishes when they are events.
      pending: new PendingPublishes({ ...pendingBounds, timeout: defaultPublishTimeout }),
      remembered: rememberIn(shared.fields),
      clean: false,
      close: () => term.close(),
      onDown: (reason, lasted) => {
        // After it, another gateway has the session.
        if (this.#lease?.isHeld) this.#takeovers.ended(reason, lasted)
      },
    })
  }

  #read({
    clean,
    onDown,
    close,
    ...parts
  }: Pick<BrokerSubscriptionOptions, 'journal' | 'deliveries' | 'pending' | 'remembered'> & {
    readonly clean: boolean
    readonly onDown: (reason: unknown, lasted: number | undefined) => void
    readonly close: () => void
  }): Reader {
    const clientId = this.#clientId
    const { log } = this.#options
    const subscription = new BrokerSubscription({
      ...{ ...parts, clientId, topics: this.#topics, log },
      openProbe: (profile, onMessage) =>
        this.#open(withoutRetainAsPublished(profile), { clientId: `${clientId}-state`, clean: true, onMessage }),
    })
    const inbound = new ReconnectingConnection({
      connect: () =>
        subscription.start(onMessage => {
          // A gateway that was stopped must not end the session of the one that reads now.
          if (this.#lease && !this.#lease.isHeld) throw new Error('another gateway may read the broker')
          return this.#connect({ clientId, clean, onMessage })
        }),
      onUp: () => this.#update(),
      onDown: (reason, lasted) => {
        if (!this.#closed) onDown(reason, lasted)
        this.#update(reason)
      },
    })
    return {
      subscription,
      inbound,
      close: () => {
        close()
        subscription.close()
      },
    }
  }

  #match(topics: readonly string[]): void {
    const matches = topicPredicate(topics)
    this.#matches = topic => matches(topic) && !isResponseTopic(topic)
  }

  async changeTopics(topics: readonly string[]): Promise<void> {
    this.#topics = topics
    this.#match(topics)
    const { shared, log } = this.#options
    await shared?.fields.set('topics', topicsField(topics)).catch(error => {
      log.warn({ err: error }, 'failed to store the topics of push for other gateways')
    })
    await this.#reader?.subscription.changeTopics(topics)
  }

  /** Finds this gateway's publishes among the events that another gateway has read. */
  #onEvents(events: readonly Event[]): void {
    for (const event of events) {
      // Events do not have RETAIN.
      this.#pending.take({ ...event, retain: false }, false)?.arrive(event)
    }
  }

  #connectOutbound(outId: string): ReconnectingConnection {
    return new ReconnectingConnection({
      connect: async () => {
        const connection: Connection = await this.#connect({
          ...{ clientId: outId, clean: true },
          onMessage: message => this.#receiveResponse(message, connection),
        })
        return connection
      },
      onUp: () => {
        // Requests of before still wait.
        if (this.#options.inbox?.isWaiting) this.receiveResponses().catch(ignore)
        this.#update()
      },
      onDown: (reason, lasted) => {
        if (lasted !== undefined && !(reason instanceof TakenOver)) void this.#learnSizeLimit()
        this.#update(reason)
      },
    })
  }

  #connect(own: OwnOptions): Promise<Connection> {
    return this.#profiles.connect(profile => this.#open(profile, own))
  }

  async #open(dialect: ProtocolProfile, own: OwnOptions): Promise<Connection> {
    const { username, password } = this.#options.config
    const stream = await this.#options.open()
    return Connection.connect({ ...own, username, password, keepAlive, connectTimeout, stream, profile: dialect })
  }

  get connected(): boolean {
    return this.#connected
  }

  get failure(): string | undefined {
    return this.#connected ? undefined : this.#failure || 'connecting'
  }

  receiveResponses(): Promise<void> {
    const { connection } = this.#outbound
    const { inbox } = this.#options
    if (!connection) return Promise.reject(this.#awayError())
    if (!inbox || connection.profile.protocolVersion !== 5) {
      return Promise.reject(new GatewayError('requests-unsupported'))
    }
    let receiving = this.#receiving.get(connection)
    if (!receiving) {
      receiving = subscribeTo(inbox.filter, connection)
      this.#receiving.set(connection, receiving)
    }
    return receiving
  }

  #receiveResponse(message: ReceivedMessage, connection: Connection): void {
    if (message.messageId !== undefined) connection.acknowledge(message.messageId)
    this.#options.inbox?.deliver(message)
  }

  #awayError(): GatewayError {
    return new GatewayError('broker-away', this.#failure ? { detail: this.#failure } : {})
  }

  async publish(given: Message, options: PublishOptions = {}): Promise<Event | undefined> {
    const message = unretainedResponse(given)
    requirePublishable(message)
    const { connection } = this.#outbound
    if (!this.#connected || !connection) throw this.#awayError()
    connection.requireAccepted(message)
    this.#sizeLimit.require(sizeOf(message))
    if (!this.#matches(message.topic)) {
      await connection.publish(message).catch(error => {
        throw error instanceof GatewayError ? error : new GatewayError('publish-timeout', { cause: error })
      })
      return undefined
    }
    if (this.#reader?.subscription.stuck || this.#options.shared?.failure !== undefined)
      throw new GatewayError('journal-unavailable')
    const pending = this.#pending.add(message, options)
    // After a lost connection, the message may still arrive.
    connection.publish(message).catch(error => {
      if (error instanceof GatewayError) pending.fail(error)
    })
    const event = await pending.event.catch(error => {
      this.#warnOfOtherBroker(error)
      throw error
    })
    this.#sizeLimit.passed(sizeOf(message))
    return event
  }

  /** Two sets of gateways with one prefix, each with a broker of its own, would each have a half of the messages. */
  #warnOfOtherBroker(error: unknown): void {
    const isMissing = error instanceof GatewayError && error.reason === 'publish-timeout'
    if (!isMissing || !this.#connected || !this.#lease || this.#reader || !this.#warnings.allows()) return
    const { log, brokerName } = this.#options
    log.warn(
      `messages published at ${brokerName} do not become events at the gateway that reads the broker: if that has another broker, give each set of gateways its own push.journal.redis.prefix`,
    )
  }

  /** Call when the broker ended the outbound connection: perhaps because of the largest pending message. */
  async #learnSizeLimit(): Promise<void> {
    const largest = this.#pending.largest()
    const inbound = this.#reader?.inbound.connection
    if (!largest || !inbound) return
    try {
      // The broker is connected, and all delivered messages have arrived.
      await inbound.ping()
    } catch {
      return
    }
    if (this.#closed || this.#pending.largest() !== largest) return
    const error = this.#sizeLimit.lost(sizeOf(largest.message))
    if (error) largest.fail(error)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#closed = true
    this.#update()
    const reader = this.#reader
    const isUp = (!reader || reader.inbound.connection) && this.#outbound.connection
    if (isUp) await Promise.race([this.#pending.idle(), delay(closeTimeout, undefined, { ref: false })])
    await this.#outbound.close()
    await reader?.subscription.stop()
    await reader?.inbound.close()
    reader?.close()
    await this.#lease?.close()
    this.#unwatch()
    this.#pending.close(new GatewayError('publish-timeout'))
  }

  /** Logs each change once, and each new reason once, not each attempt. */
  #update(reason?: unknown): void {
    const { log, onStateChange } = this.#options
    const reads = this.#reader ? this.#reader.inbound.connection !== undefined : this.#lease !== undefined
    const connected = !this.#closed && reads && this.#outbound.connection !== undefined
    if (connected && !this.#connected) {
      this.#failure = ''
      this.#loggedFailures.clear()
      log.info('push connected to the broker')
    } else if (!connected && !this.#closed && reason instanceof Error) {
      this.#logFailure(describeFailure(reason, this.#options.brokerName))
    }
    if (connected !== this.#connected) {
      this.#connected = connected
      onStateChange?.(connected)
    }
    if (connected || reason !== undefined) this.#onAttempted()
  }

  #logFailure(failure: string): void {
    this.#failure = failure
    if (this.#loggedFailures.has(failure) || this.#loggedFailures.size >= maxLoggedFailures) return
    this.#loggedFailures.add(failure)
    this.#options.log.warn({ reason: failure }, `push cannot connect to the broker and will retry: ${failure}`)
  }
}

/** @throws {GatewayError} rejects with `requests-unsupported`, `broker-away` */
async function subscribeTo(filter: string, connection: Connection): Promise<void> {
  const refused = await connection.subscribe([filter], 1).catch(cause => {
    throw new GatewayError('broker-away', { cause })
  })
  if (refused.length > 0) {
    throw new GatewayError('requests-unsupported', { detail: `the broker refused the subscription to ${filter}` })
  }
}

/** The reason of a failed connection, with the broker's address. */
function describeFailure(reason: Error, brokerName: string): string {
  const text = reason instanceof GatewayError ? (reason.detail ?? reason.text) : reason.message
  const login = reason instanceof ConnectionRefusal && reason.isOfLogin ? ': see push.username and push.password' : ''
  return (text.startsWith(`${brokerName}: `) ? text : `${brokerName}: ${text}`) + login
}

function ignore(): void {}
