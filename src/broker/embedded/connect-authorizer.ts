import type { Client, ConnectPacket } from 'aedes'
import { type ErrorReason, GatewayError } from '../../base/errors.js'
import { anonymous, type Identity } from '../../base/identity.js'
import type { Logger } from '../../base/log.js'
import type { DeniedAction } from '../../base/metrics.js'
import type { TimeSlicer } from '../../base/time-slicer.js'
import { mayMatchResponses } from '../../topics/response-topic.js'
import { isWithinBounds, type TopicBounds } from '../../topics/topic-syntax.js'
import { internalPeer, type Peer } from '../broker.js'
import type { Authorizer, Rights } from './authorizer.js'
import { type ClientIdRegistry, internalOwner, ownerOf } from './client-id-registry.js'
import { type Holder, holderKey, isAnonymous } from './session-holders.js'
import type { Sessions } from './sessions.js'
import type { SubscriptionRefusal } from './subscription-limits.js'

export interface ConnectAuthorizerOptions {
  /** `undefined`: every client may do everything. */
  readonly authorizer: Authorizer | undefined
  /** Client ids of the gateway itself. */
  readonly reservedClientIds?: ReadonlySet<string> | undefined
  readonly bounds: TopicBounds
  readonly clientIds: ClientIdRegistry
  readonly sessions: Pick<Sessions, 'admit' | 'abandon'>
  /** Network of an address; its anonymous clients share quotas. */
  readonly networkOf: (address: string) => string
  readonly peerOf: (client: Client) => Peer | undefined
  /** Whether a client has closed its connection; Aedes learns that after CONNACK. */
  readonly isGone: (client: Client) => boolean
  /** Sets the close reason of a client's connection. */
  readonly setCloseReason: (client: Client, reason: GatewayError) => void
  /** Closes a connection at once. */
  readonly end: (client: Client, reason: GatewayError) => void
  /** Closes a connection after the written bytes. */
  readonly disconnect: (client: Client, reason: GatewayError) => void
  readonly onDenied: (action: DeniedAction) => void
  readonly log: Logger
}

/** State of one connection: its CONNECT, then its rights. */
interface Admission {
  readonly client: Client
  readonly connect: ConnectPacket
  rights: Rights | undefined
  /** Whether its session is being restored, before CONNACK. */
  isRestoring: boolean
  warned: boolean
  /** Whether its ignored messages to `$SYS` are logged. */
  hasLoggedSys: boolean
  /** Called when it has its CONNACK, or is closed. */
  onSettled: () => void
}

/** MQTT 3.1.1, table 3.1: 2 identifier rejected, 3 unavailable, 4 bad user name or password, 5 not authorized. */
const returnCodes: Partial<Record<ErrorReason, 2 | 3 | 4 | 5>> = {
  'client-id-taken': 2,
  'client-id-reserved': 2,
  'too-many-sessions': 3,
  'identity-refused': 4,
  'identity-required': 5,
  'identity-expired': 5,
  'will-refused': 5,
}

/** Networks remembered as logged. */
const maxLoggedNetworks = 10_000

/** Authenticates CONNECTs, and authorizes what their connections do. */
export class ConnectAuthorizer {
  readonly #options: ConnectAuthorizerOptions
  readonly #admissions = new WeakMap<object, Admission>()
  /** Networks whose clients are logged to have no sessions. */
  readonly #loggedNetworks = new Set<string>()

  constructor(options: ConnectAuthorizerOptions) {
    this.#options = options
  }

  /** Call with each CONNECT. */
  received(client: Client, connect: ConnectPacket): void {
    const admission = {
      client,
      connect,
      rights: undefined,
      isRestoring: true,
      warned: false,
      hasLoggedSys: false,
      onSettled: () => {},
    }
    this.#admissions.set(client, admission)
  }

  /** The CONNECT of `client`. */
  connectOf(client: Client): ConnectPacket | undefined {
    return this.#admissions.get(client)?.connect
  }

  /** Call when `client` has its CONNACK. */
  connected(client: Client): void {
    const admission = this.#admissions.get(client)
    if (!admission) return
    admission.isRestoring = false
    admission.onSettled()
  }

  /**
   * Authenticates the CONNECT of `client`; synchronously without an authorizer.
   *
   * @param done called with an error with the return code of CONNACK, or without one
   */
  judge(client: Client, done: (error?: Error & { returnCode: 2 | 3 | 4 | 5 }) => void): void {
    const refuse = (error: unknown): void => {
      const refusal = GatewayError.from(error)
      this.#options.setCloseReason(client, refusal)
      const returnCode = returnCodes[refusal.reason] ?? 3
      done(Object.assign(new Error(refusal.text, { cause: error }), { returnCode }))
    }
    try {
      this.#checkClientId(client)
      this.#checkWill(client)
      if (this.#options.authorizer) {
        const admitted = this.#admit(client, this.#options.authorizer)
        admitted.then(() => this.#admitSession(client)).then(() => done(), refuse)
        return
      }
      this.#admitSession(client)
      done()
    } catch (error) {
      refuse(error)
    }
  }

  async #admit(client: Client, authorizer: Authorizer): Promise<void> {
    const { clientIds, peerOf } = this.#options
    const admission = this.#admissions.get(client)
    const peer = peerOf(client)
    if (!admission || !peer) return
    const isInternal = peer === internalPeer
    const rights = isInternal ? everything : await this.#ask(client, admission.connect, peer, authorizer)
    const releases = [rights.release]
    const release = (): void => {
      for (const part of releases) part()
    }
    try {
      const { will } = admission.connect
      // A bridge's will in $SYS is accepted and dropped.
      if (will && !will.topic.startsWith('$SYS/') && !rights.mayPublish(will.topic))
        throw new GatewayError('will-refused')
      const owner = isInternal ? internalOwner : ownerOf(rights.identity)
      releases.push(await clientIds.claim(client.id, owner, () => this.#yieldClientId(client)))
    } catch (error) {
      release()
      throw error
    }
    admission.rights = rights
    // The client may have disconnected.
    if (client.conn.closed) release()
    else client.conn.once('close', release)
  }

  /** The user of `client`, or else its network: its connections share quotas. */
  holderOf(client: Client): Holder {
    const { peerOf, networkOf, authorizer } = this.#options
    const peer = peerOf(client)
    if (peer === internalPeer) return { owner: internalOwner, network: undefined }
    const owner = authorizer && ownerOf(this.identityOf(client))
    return { owner, network: isAnonymous(owner) ? networkOf(peer?.address ?? '') : undefined }
  }

  /**
   * Admits the session of a client that wants one. Where its holder may have none, the client gets a clean session: CONNACK has no
   * session-present flag, as for a new session [MQTT-3.2.2-3].
   */
  #admitSession(client: Client): void {
    const { sessions } = this.#options
    const connect = this.#admissions.get(client)?.connect
    if (!connect || client.clean) return
    const holder = this.holderOf(client)
    const expiry = client.version === 5 ? client.sessionExpiryInterval : undefined
    if (sessions.admit(client.id, holder, expiry)) {
      if (client.conn.closed) sessions.abandon(client.id)
      else client.conn.once('close', () => sessions.abandon(client.id))
      return
    }
    connect.clean = true
    Object.assign(client, { clean: true, sessionExpiryInterval: 0, _sessionExpiryClamped: client.version === 5 })
    this.#logNoSession(client, holder)
  }

  /** Once for each remembered network. */
  #logNoSession(client: Client, { network = '' }: Holder): void {
    if (this.#loggedNetworks.has(network)) return
    if (this.#loggedNetworks.size >= maxLoggedNetworks) this.#loggedNetworks.clear()
    this.#loggedNetworks.add(network)
    this.#options.log.info(
      { clientId: client.id, network },
      'the session of an anonymous client ends with its connection: embedded.maxAnonymousSessions is 0',
    )
  }

  /** Closes a connection whose client id goes to another owner; resolves when the broker has forgotten it. */
  async #yieldClientId(client: Client): Promise<void> {
    const admission = this.#admissions.get(client)
    // Aedes completes a CONNECT even after its connection is closed, and would replace the next client.
    if (admission?.isRestoring && !client.conn.closed) {
      await new Promise<void>(resolve => {
        admission.onSettled = resolve
        client.conn.once('close', resolve)
      })
    }
    this.#options.disconnect(client, new GatewayError('client-id-taken'))
    await new Promise<void>(resolve => client.close(resolve))
  }

  #ask(client: Client, connect: ConnectPacket, peer: Peer, authorizer: Authorizer): Promise<Rights> {
    const { clientId, username, password } = connect
    const isGone = (): boolean => this.#options.isGone(client)
    return authorizer.admit({ clientId, username, password, isGone }, peer, reason => this.#options.end(client, reason))
  }

  #checkClientId(client: Client): void {
    const { reservedClientIds, peerOf } = this.#options
    if (reservedClientIds?.has(client.id) && peerOf(client) !== internalPeer)
      throw new GatewayError('client-id-reserved')
  }

  /** A will with too long a topic would silently fail to be published. */
  #checkWill(client: Client): void {
    const will = this.#admissions.get(client)?.connect.will
    if (will && !isWithinBounds(will.topic, this.#options.bounds)) throw new GatewayError('topic-too-large')
  }

  /** Whether a message of `client` is published; if not, it is dropped. An error closes the connection. */
  screen(client: Client, topic: string): boolean | GatewayError {
    if (!isWithinBounds(topic, this.#options.bounds)) return new GatewayError('topic-too-large')
    if (this.#rightsOf(client).mayPublish(topic)) return true
    this.#deny('publish', client, topic)
    return false
  }

  /** Call when a message of `client` to `$SYS` is acknowledged and dropped. */
  ignored(client: Client, topic: string): void {
    const admission = this.#admissions.get(client)
    if (!admission || admission.hasLoggedSys) return
    admission.hasLoggedSys = true
    this.#options.log.info(
      { clientId: client.id, topic },
      'ignoring messages of this client to $SYS: only the broker publishes there',
    )
  }

  /** Whether the rules allow `client` to subscribe to `filter`. */
  maySubscribe(client: object, filter: string): boolean {
    return this.#rightsOf(client).maySubscribe(filter)
  }

  /** Call when a filter was not granted. */
  notGranted(client: Client, filter: string, refusal: SubscriptionRefusal): void {
    this.#deny('subscribe', client, filter, refusals[refusal])
  }

  /** Quota key of `client`: its user or network; `undefined` for the gateway itself. */
  quotaKeyOf(client: object): string | undefined {
    const known = this.#admissions.get(client)?.client
    return known && holderKey(this.holderOf(known))
  }

  /** Whether `client` may receive a queued or retained message. */
  mayReceive(client: Client, topic: string): boolean {
    if (this.#rightsOf(client).mayRead(topic)) return true
    this.#deny('receive', client, topic)
    return false
  }

  /** Identity of `client`; `anonymous` without access control. */
  identityOf(client: object): Identity {
    return this.#rightsOf(client).identity
  }

  #rightsOf(client: object): Rights {
    if (!this.#options.authorizer) return everything
    return this.#admissions.get(client)?.rights ?? nothing
  }

  /**
   * Ends the connection of `client` if it would no longer be admitted, or one of its filters no longer granted.
   *
   * @param filters without the group of a shared subscription
   */
  async review(client: Client, filters: Iterable<string>, slicer: TimeSlicer): Promise<void> {
    const { authorizer, peerOf, end } = this.#options
    const rights = this.#admissions.get(client)?.rights
    if (!authorizer || !rights || peerOf(client) === internalPeer) return
    let refusal = authorizer.refusalOf?.(rights.identity)
    for (const filter of filters) {
      if (refusal) break
      if (slicer.isOver) await slicer.next('clients')
      if (!rights.maySubscribe(filter)) refusal = new GatewayError('topic-refused', { hint: filter.slice(0, 256) })
    }
    if (!refusal || client.closed) return
    end(client, refusal)
    slicer.endedConnection()
  }

  /** A warning the first time on a connection: the client or the rules need a change. */
  #deny(action: DeniedAction, client: Client, topic: string, text = denials[action]): void {
    const { log, onDenied } = this.#options
    onDenied(action)
    const admission = this.#admissions.get(client)
    const level = admission?.warned === true ? 'debug' : 'warn'
    if (admission) admission.warned = true
    log[level]({ ...this.logFieldsOf(client), topic }, text)
  }

  logFieldsOf(client: Client): object {
    const peer = this.#options.peerOf(client)
    const user = this.#admissions.get(client)?.rights?.identity.user
    return { connection: peer?.connection, peer: peer?.address, clientId: client.id, user }
  }
}

const denials: Readonly<Record<DeniedAction, string>> = {
  publish: 'dropped a message: this client may not publish to its topic',
  subscribe: 'a subscription was refused: this client may not have its filter',
  receive: 'dropped a queued or retained message: this client may no longer read its topic',
}

/** Texts of `refusals` begin so. */
const refused = 'a subscription was refused:'

const refusals: Readonly<Record<SubscriptionRefusal, string>> = {
  rules: denials.subscribe,
  invalid: `${refused} this is no topic filter, or larger than limits.topicLevels or limits.topicLength`,
  maxSubscriptions: `${refused} the client has as many topic filters as it may (embedded.maxSubscriptions)`,
  maxSubscriptionBytes: `${refused} the client's topic filters have as many bytes as they may (embedded.maxSubscriptionBytes)`,
  maxSubscriptionsBytes: `${refused} the user or network has its share of the topic filters of all (embedded.maxSubscriptionsBytes)`,
  maxSessionsBytes: `${refused} the user or network has its share of the sessions of all (embedded.maxSessionsBytes)`,
}

const everything: Rights = {
  identity: anonymous,
  mayPublish: () => true,
  maySubscribe: filter => !mayMatchResponses(filter),
  mayRead: () => true,
  release: () => {},
}

const nothing: Rights = {
  ...everything,
  mayPublish: () => false,
  maySubscribe: () => false,
  mayRead: () => false,
}
