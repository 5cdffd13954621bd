import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import type { PushConfig } from '../../config/push.js'
import type { Event } from '../../journal/event.js'
import { type Journal, sizeOf } from '../../journal/journal.js'
import { ConnectionRefusal, TakenOver } from '../../mqtt/broker-responses.js'
import { Connection, type ConnectionOptions } from '../../mqtt/connection.js'
import type { Message } from '../../mqtt/message.js'
import { type ProtocolProfile, tellingState } from '../../mqtt/protocol-profile.js'
import { ProtocolProfiles } from '../../mqtt/protocol-profiles.js'
import { requirePublishable } from '../../mqtt/publishable.js'
import { ReconnectingConnection } from '../../mqtt/reconnecting-connection.js'
import type { ReservedClientIds } from '../../mqtt/reserved-client-ids.js'
import { topicPredicate } from '../../topics/match.js'
import { type PublishOptions, usualPublishTime } from '../publisher.js'
import { RememberedSubscriptions } from '../remembered-subscriptions.js'
import type { Source } from '../source.js'
import { BrokerSubscription } from './broker-subscription.js'
import { openClientId, type SessionClientId } from './client-id.js'
import { FormerSession } from './former-session.js'
import { LearnedSizeLimit } from './learned-size-limit.js'
import { PendingPublishes } from './pending-publishes.js'
import { TakeoverDetector } from './takeover-detector.js'

/** What a session needs. */
export interface SessionOptions {
  /** The broker's address, for the log. */
  readonly brokerName: string
  /** Opens a stream to the broker. */
  readonly open: () => Promise<Duplex>
  readonly config: Pick<PushConfig, 'topics' | 'journal' | 'username' | 'password' | 'clientId'>
  /** Where the gateway keeps its data; `undefined` for nowhere. Sessions of gateways on one machine are told apart by it. */
  readonly data: string | undefined
  readonly journal: Journal
  readonly log: Logger
  /** Gets the client ids that the session uses. */
  readonly reservedClientIds?: ReservedClientIds | undefined
  /** Called when `ready` changes. */
  readonly onStateChange?: ((ready: boolean) => void) | undefined
  /** How long a publication may take until it is in the journal, in milliseconds; `usualPublishTime` when left out. */
  readonly publishTimeout?: number
}

/** In what the connections of one session differ. */
type OwnOptions = Pick<ConnectionOptions, 'clientId' | 'clean' | 'onMessage'>

/** Publications under way at once, and their bytes. */
const [maxUnderWay, maxUnderWayBytes] = [10_000, 64 * 1024 ** 2]
/** Those that somebody goes on waiting for after that, and their bytes. */
const [maxLate, maxLateBytes] = [1000, 16 * 1024 ** 2]
/** How long a broker may take for CONNACK, in milliseconds. */
const connectTimeout = 10_000
/** In seconds. */
const keepAlive = 30
/** Different reasons in the log of one absence of the broker. */
const maxLoggedFailures = 10
/** How long what is under way at the end may take to come back, in milliseconds. */
const lastPatience = 1000
/** How long a start waits for a broker elsewhere, in milliseconds: one that is there has answered by then. */
const patience = 1000

/**
 * Opens the session, and keeps it: a broker that is away is tried again until it is there. Never throws for that.
 *
 * There are two connections, as a broker that tells which messages were published with RETAIN does not give a bridge back
 * what it published itself. The one that reads keeps its place at the broker where the journal outlives the process.
 *
 * @returns as soon as the broker has been tried once
 */
export async function openSession(options: SessionOptions): Promise<Source> {
  const { config, data, reservedClientIds } = options
  const id =
    config.clientId === undefined
      ? await openClientId(config.journal === 'level' ? data : undefined)
      : fixed(config.clientId)
  const { clientId, former } = id
  reservedClientIds?.add(clientId, `${clientId}-state`, `${clientId}-out`, ...(former === undefined ? [] : [former]))
  const session = new BrokerSession(options, id)
  await session.tried
  return session
}

/** A client id of the configuration. */
function fixed(clientId: string): SessionClientId {
  return { clientId, forgetFormer: async () => {} }
}

class BrokerSession implements Source {
  readonly tried: Promise<void>
  readonly #options: SessionOptions
  readonly #matches: (topic: string) => boolean
  readonly #echoes: PendingPublishes
  readonly #sizes = new LearnedSizeLimit()
  readonly #reader: BrokerSubscription
  readonly #former: FormerSession | undefined
  readonly #readLink: ReconnectingConnection
  readonly #writeLink: ReconnectingConnection
  #ready = false
  /** Why the broker is away; empty before the first attempt has failed. */
  #failure = ''
  /** Reasons that the log has since the session was last ready. */
  readonly #loggedFailures = new Set<string>()
  #closed = false
  #closing: Promise<void> | undefined

  constructor(options: SessionOptions, { clientId, former, forgetFormer }: SessionClientId) {
    this.#options = options
    const { config, data, journal, log } = options
    this.#matches = topicPredicate(config.topics)
    this.#echoes = new PendingPublishes({
      maxCount: maxUnderWay,
      maxBytes: maxUnderWayBytes,
      maxLate,
      maxLateBytes,
      timeout: options.publishTimeout ?? usualPublishTime,
    })
    const dialects = new ProtocolProfiles(log)
    const open = async (dialect: ProtocolProfile, own: OwnOptions): Promise<Connection> => {
      const { username, password } = config
      const stream = await options.open()
      return Connection.connect({ ...own, username, password, keepAlive, connectTimeout, stream, dialect })
    }
    const isKept = config.journal === 'level'
    const remembered = new RememberedSubscriptions(isKept ? data : undefined)
    this.#reader = new BrokerSubscription({
      journal,
      clientId,
      topics: config.topics,
      echoes: this.#echoes,
      remembered,
      openProbe: (dialect, onMessage) =>
        open(tellingState(dialect), { clientId: `${clientId}-state`, clean: true, onMessage }),
      log,
    })
    let onTried = ignore
    const tried = new Promise<void>(resolve => {
      onTried = resolve
    })
    const onChange = (reason?: unknown): void => {
      this.#update(reason)
      if (this.#ready || reason !== undefined) onTried()
    }
    const connect = (own: OwnOptions): Promise<Connection> => dialects.connect(dialect => open(dialect, own))
    if (former !== undefined) {
      this.#former = new FormerSession({
        ...{ clientId: former, topics: config.topics, remembered, connect, log },
        write: (message, onWritten) => this.#reader.write(message, onWritten),
        forget: forgetFormer,
      })
    }
    const rivals = new TakeoverDetector({ clientId, log })
    this.#readLink = new ReconnectingConnection({
      connect: async () => {
        const hasAll = await this.#former?.resume()
        const connection = await this.#reader.start(
          onMessage => connect({ clientId, clean: !isKept, onMessage }),
          hasAll,
        )
        await this.#former?.end()
        return connection
      },
      onUp: () => onChange(),
      onDown: (reason, lasted) => {
        if (!this.#closed) rivals.ended(reason, lasted)
        onChange(reason)
      },
    })
    this.#writeLink = new ReconnectingConnection({
      connect: () => connect({ clientId: `${clientId}-out`, clean: true }),
      onUp: () => onChange(),
      onDown: (reason, lasted) => {
        if (lasted !== undefined && !(reason instanceof TakenOver)) void this.#suspectSize()
        onChange(reason)
      },
    })
    this.tried = Promise.race([tried, delay(patience, undefined, { ref: false })])
  }

  get ready(): boolean {
    return this.#ready
  }

  get failure(): string | undefined {
    return this.#ready ? undefined : this.#failure || 'it is being connected'
  }

  get connected(): boolean {
    return this.#ready
  }

  async publish(message: Message, options: PublishOptions = {}): Promise<Event | undefined> {
    requirePublishable(message)
    const { connection } = this.#writeLink
    if (!this.#ready || !connection)
      throw new GatewayError('broker-away', this.#failure ? { detail: this.#failure } : {})
    connection.requireTakes(message)
    this.#sizes.require(sizeOf(message))
    if (!this.#matches(message.topic)) {
      await connection.publish(message).catch(error => {
        throw publishEnding(error)
      })
      return undefined
    }
    if (this.#reader.stuck) throw new GatewayError('journal-unavailable')
    const echo = this.#echoes.expect(message, options)
    // A connection that is lost says nothing of what became of the message: it may be on its way here.
    connection.publish(message).catch(error => {
      if (error instanceof GatewayError) echo.fail(error)
    })
    const event = await echo.event
    this.#sizes.passed(sizeOf(message))
    return event
  }

  /** Looks for a publication for which the broker may have ended the connection: one of several that were on their way. */
  async #suspectSize(): Promise<void> {
    const largest = this.#echoes.largest()
    const reading = this.#readLink.connection
    if (!largest || !reading) return
    try {
      // So it is there, and what it has passed on has come.
      await reading.ping()
    } catch {
      return
    }
    if (this.#closed || this.#echoes.largest() !== largest) return
    const ending = this.#sizes.lost(sizeOf(largest.message))
    if (ending) largest.fail(ending)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#closed = true
    this.#update()
    // Whoever has just published gets an answer, where the broker gives one.
    const isThere = this.#readLink.connection && this.#writeLink.connection
    if (isThere) await Promise.race([this.#echoes.idle(), delay(lastPatience, undefined, { ref: false })])
    await this.#writeLink.close()
    await this.#reader.stop()
    await this.#readLink.close()
    this.#former?.close()
    this.#reader.close()
    this.#echoes.close(new GatewayError('publish-timeout'))
  }

  /** One line in the log for each change and each new reason, however many attempts there are. */
  #update(reason?: unknown): void {
    const { log, onStateChange } = this.#options
    const closed = this.#closed
    const ready = !closed && this.#readLink.connection !== undefined && this.#writeLink.connection !== undefined
    if (ready && !this.#ready) {
      this.#failure = ''
      this.#loggedFailures.clear()
      log.info('push is connected with the broker')
    } else if (!ready && !closed && reason instanceof Error) {
      this.#failed(describeFailure(reason, this.#options.brokerName))
    }
    if (ready === this.#ready) return
    this.#ready = ready
    onStateChange?.(ready)
  }

  #failed(failure: string): void {
    this.#failure = failure
    if (this.#loggedFailures.has(failure) || this.#loggedFailures.size >= maxLoggedFailures) return
    this.#loggedFailures.add(failure)
    const text = 'push has no connection with the broker; it is tried again until there is one'
    this.#options.log.warn({ reason: failure }, `${text}: ${failure}`)
  }
}

/** Why there is no session, with the broker's address. */
function describeFailure(reason: Error, brokerName: string): string {
  const text = reason instanceof GatewayError ? (reason.detail ?? reason.text) : reason.message
  const login = reason instanceof ConnectionRefusal && reason.isOfLogin ? ': see push.username and push.password' : ''
  return (text.startsWith(`${brokerName}: `) ? text : `${brokerName}: ${text}`) + login
}

function publishEnding(error: unknown): GatewayError {
  return error instanceof GatewayError ? error : new GatewayError('publish-timeout', { cause: error })
}

function ignore(): void {}
