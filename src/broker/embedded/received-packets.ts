import { isUtf8 } from 'node:buffer'
import type { Client, PublishPacket } from 'aedes'
import { GatewayError } from '../../base/errors.js'
import type { FairQuota } from '../../base/fair-quota.js'
import { firstFailure, reasonCodes } from '../../mqtt/reason-codes.js'
import { encodeAcknowledgement } from '../../mqtt/server-packets.js'
import type { Receiver } from './delivery.js'
import type { PairEnd } from './stream-pair.js'
import type { PacketParser, ParsedPacket } from './strict-packets.js'
import { maxTopicAliases } from './topic-aliases.js'
import { UnreleasedIds } from './unreleased-ids.js'

declare module 'aedes' {
  interface Client {
    _keepaliveTimer: NodeJS.Timeout | null
    readonly _keepaliveInterval: number
    readonly _parser: PacketParser
    /** Packets of the last read in progress: Aedes reads on when there are none. */
    _parsingBatch: number
    _nextBatch(error?: Error | null): void
    /** The session expiry interval of CONNECT, in seconds. */
    readonly _connectSessionExpiryInterval: number
    readonly _requestProblemInformation: boolean
  }
}

/** Messages of QoS 1 and 2 that a client of MQTT 5 may send without acknowledgement (receive maximum, §3.2.2.3.3). */
export const receiveMaximum = 1024

/** Messages of QoS 1 that a client may have without PUBACK before it is not read until they are stored. */
const maxUnacknowledged = 128

type Next = () => void

/** Publishes messages in order (`DurableAedes`). */
interface Publisher {
  accept(
    client: Client,
    packet: PublishPacket,
    stored: ((error: Error | undefined, hasSubscribers: boolean) => void) | undefined,
    done: Next,
  ): void
  drop(client: Client, packet: PublishPacket, stored: (error: Error | undefined) => void, done: Next): void
}

export interface ReceivedPacketsOptions {
  readonly publisher: () => Publisher
  /** Whether a message of a client is published: false if it may not; an error if its topic is not valid. */
  readonly screen: (client: Client, topic: string) => boolean | GatewayError
  /** Called for a client's message to `$SYS`, which is acknowledged and dropped. */
  readonly ignored: (client: Client, topic: string) => void
  readonly subscribe: (client: Client, packet: ParsedPacket) => Promise<void>
  readonly unsubscribe: (client: Client, packet: ParsedPacket) => Promise<void>
  /** Called for the last acknowledgement of a message, with whether its reason code is success. */
  readonly onAcknowledgement: (client: Client, messageId: number, isSuccess: boolean) => void
  /** Call with an acknowledged message: its packet identifier becomes free. */
  readonly acknowledged: (client: Client, messageId: number) => Promise<unknown>
  /** Stores that a message of QoS 2 waits for PUBCOMP. */
  readonly received: (client: Client, messageId: number) => Promise<unknown>
  /** Whether a message of QoS 2 with this identifier waits for PUBREL; then it does not any more. */
  readonly release: (client: Client, messageId: number) => Promise<boolean>
  readonly receiverOf: (client: Client) => Receiver | undefined
  readonly endOf: (client: Client) => PairEnd | undefined
  readonly accountOf: (client: Client) => string
  readonly unreleased: FairQuota
  /** Closes a connection; a client of MQTT 5 is told why. */
  readonly disconnect: (client: Client, reason: GatewayError) => void
  readonly onError: (error: unknown) => void
}

/** The state of one connection's packets. */
interface Connection {
  readonly client: Client
  /** Packets before it is connected. */
  readonly early: ParsedPacket[]
  isConnected: boolean
  /** Whether the client has sent DISCONNECT: nothing counts behind it. */
  isOver: boolean
  /** Packet identifiers of QoS 2 that wait for PUBREL. */
  unreleased: UnreleasedIds | undefined
  /** Messages of QoS 1 that wait for PUBACK. */
  publishing: number
  aliases: Map<number, string> | undefined
  readonly toAedes: (packet: ParsedPacket) => void
}

/**
 * Handles the packets of connected clients but CONNECT, PINGREQ and DISCONNECT, which Aedes handles.
 *
 * Aedes acknowledges a message before it is stored, knows few of the reason codes of MQTT 5, and no receive maximum.
 */
export class ReceivedPackets {
  readonly #options: ReceivedPacketsOptions
  readonly #connections = new WeakMap<Client, Connection>()

  constructor(options: ReceivedPacketsOptions) {
    this.#options = options
  }

  /** Takes the packets of a new connection over from Aedes. */
  attach(client: Client): void {
    const parser = client._parser
    const [aedes] = parser.listeners('packet') as ((packet: ParsedPacket) => void)[]
    if (!aedes) throw new TypeError('Aedes has no packet listener')
    parser.removeListener('packet', aedes)
    const connection: Connection = {
      client,
      early: [],
      isConnected: false,
      isOver: false,
      unreleased: undefined,
      publishing: 0,
      aliases: undefined,
      toAedes: packet => aedes.call(parser, packet),
    }
    this.#connections.set(client, connection)
    let isFirst = true
    parser.on('packet', packet => {
      if (isFirst) connection.toAedes(packet)
      else if (connection.isConnected) this.#handle(connection, packet)
      else {
        client._parsingBatch++
        connection.early.push(packet)
      }
      isFirst = false
    })
    client.conn.once('close', () => connection.unreleased?.clear())
  }

  /** Call when a client has its CONNACK. */
  connected(client: Client): void {
    const connection = this.#connections.get(client)
    if (!connection) return
    connection.isConnected = true
    for (const packet of connection.early.splice(0)) {
      client._parsingBatch--
      this.#handle(connection, packet)
    }
  }

  #handle(connection: Connection, packet: ParsedPacket): void {
    const { client } = connection
    if (client.closed || connection.isOver) return
    const refusal = client.version === 5 ? refusalOf(client, packet) : undefined
    if (refusal) {
      this.#options.disconnect(client, refusal)
      return
    }
    const handled = this.#start(connection, packet)
    if (packet.cmd === 'disconnect') {
      connection.isOver = true
      // Aedes would discard the will for any other one [MQTT-3.14.4-3].
      if ((packet.reasonCode ?? 0) > 0) Object.assign(packet, { reasonCode: reasonCodes.disconnectWithWill })
    }
    if (!handled) {
      connection.toAedes(packet)
      return
    }
    if (client._keepaliveInterval > 0) client._keepaliveTimer?.refresh()
    client._parsingBatch++
    const next = (): void => {
      if (!client.closed) client._nextBatch()
    }
    let isStarting = true
    // Not synchronously: further packets would be parsed inside the parser's call for this one.
    handled(() => (isStarting ? setImmediate(next) : next()))
    isStarting = false
  }

  /** Returns what handles a packet; `undefined` if Aedes does. */
  #start(connection: Connection, packet: ParsedPacket): ((next: Next) => void) | undefined {
    const { client } = connection
    const { messageId = 0 } = packet
    const run = (task: () => Promise<unknown>) => (next: Next) => this.#run(client, task, next)
    switch (packet.cmd) {
      case 'publish':
        return next => this.#publish(connection, packet, next)
      case 'subscribe':
        return run(() => this.#options.subscribe(client, packet))
      case 'unsubscribe':
        return run(() => this.#options.unsubscribe(client, packet))
      case 'puback':
      case 'pubcomp':
        this.#options.onAcknowledgement(client, messageId, (packet.reasonCode ?? 0) < firstFailure)
        return run(() => this.#options.acknowledged(client, messageId))
      case 'pubrec':
        return run(() => this.#received(client, packet))
      case 'pubrel':
        return run(() => this.#release(connection, messageId))
      default:
        return undefined
    }
  }

  #run(client: Client, task: () => Promise<unknown>, next: Next): void {
    task().then(next, error => {
      this.#options.onError(error)
      this.#options.disconnect(client, GatewayError.from(error))
    })
  }

  /** A PUBREC (§4.3.3). */
  async #received(client: Client, { messageId = 0, reasonCode = 0 }: ParsedPacket): Promise<void> {
    if (reasonCode >= firstFailure) {
      this.#options.onAcknowledgement(client, messageId, false)
      await this.#options.acknowledged(client, messageId)
      return
    }
    const isKnown = this.#options.receiverOf(client)?.ids.has(messageId) ?? true
    if (!client.clean) await this.#options.received(client, messageId)
    const isNotFound = client.version === 5 && !isKnown
    this.#write(client, encodeAcknowledgement('pubrel', { id: messageId, ...(isNotFound && notFound) }))
  }

  async #release({ client, unreleased }: Connection, id: number): Promise<void> {
    const isKnown = await this.#options.release(client, id)
    if (isKnown) unreleased?.delete(id)
    const isNotFound = client.version === 5 && !isKnown
    this.#write(client, encodeAcknowledgement('pubcomp', { id, ...(isNotFound && notFound) }))
  }

  #publish(connection: Connection, parsed: ParsedPacket, next: Next): void {
    const { client } = connection
    const { qos = 0, messageId = 0 } = parsed
    const refusal = client.version === 5 ? this.#resolve(connection, parsed) : undefined
    if (refusal) {
      this.#options.disconnect(client, refusal)
      return
    }
    const packet = parsed as unknown as PublishPacket
    const verdict = this.#verdict(connection, packet)
    // Otherwise its aliases would be as long as it likes.
    const isTooLong = verdict instanceof GatewayError && verdict.reason === 'topic-too-large'
    const hasAlias = parsed.properties?.topicAlias !== undefined
    if (verdict instanceof GatewayError && (client.version !== 5 || qos === 0 || (isTooLong && hasAlias))) {
      this.#options.disconnect(client, verdict)
      return
    }
    if (qos === 0) {
      if (verdict === true) this.#options.publisher().accept(client, packet, undefined, next)
      else next()
      return
    }
    if (qos === 1) connection.publishing++
    // The client's next packets wait for its delivery, but few of them for the disk.
    const isStorageAwaited = qos === 2 || connection.publishing > maxUnacknowledged
    let left = isStorageAwaited ? 2 : 1
    const done = (): void => {
      if (--left === 0) next()
    }
    const stored = (error: Error | undefined, hasSubscribers: boolean): void => {
      if (qos === 1) connection.publishing--
      const failed = verdict === true ? error : verdict || notAuthorized
      if (failed !== undefined && qos === 2) this.#forget(connection, messageId)
      this.#acknowledge(client, { qos, id: messageId, failed, hasSubscribers })
      if (isStorageAwaited) done()
    }
    if (verdict === true) this.#options.publisher().accept(client, packet, stored, done)
    else this.#options.publisher().drop(client, packet, error => stored(error, false), done)
  }

  /** A client of MQTT 5 uses the identifier of a refused message for another one, also where it is a repetition of one before (§4.3.3). */
  #forget({ client, unreleased }: Connection, messageId: number): void {
    unreleased?.delete(messageId)
    if (client.version === 5) this.#options.release(client, messageId).catch(this.#options.onError)
  }

  /** Whether a message is published; false or an error is acknowledged with a reason code, or before MQTT 5 with success [MQTT-3.3.5-2]. */
  #verdict(connection: Connection, packet: PublishPacket): boolean | GatewayError {
    const { client } = connection
    const { topic, qos, messageId = 0 } = packet
    const verdict = this.#options.screen(client, topic)
    if (verdict !== true) return verdict
    if (topic.startsWith('$SYS/') || topic === '$SYS') {
      this.#options.ignored(client, topic)
      return false
    }
    if (client.version === 5 && isInvalidText(packet)) return payloadInvalid
    if (qos < 2) return true
    connection.unreleased ??= new UnreleasedIds(this.#options.unreleased, this.#options.accountOf(client))
    if (!connection.unreleased.fits(messageId)) return new GatewayError('identifiers-too-many')
    // Before publishing: a message that the client must send again must not be delivered.
    connection.unreleased.add(messageId)
    return true
  }

  /** Resolves the topic alias of a message, and sets its expiry; returns why its connection is closed. */
  #resolve(connection: Connection, packet: ParsedPacket): GatewayError | undefined {
    const { qos = 0, messageId = 0, properties, topic = '' } = packet
    const isRepetition = connection.unreleased?.has(messageId) === true
    const unacknowledged = connection.publishing + (connection.unreleased?.size ?? 0)
    if (qos > 0 && !isRepetition && unacknowledged >= receiveMaximum) {
      return new GatewayError('receive-maximum-exceeded', { hint: `${receiveMaximum}` })
    }
    if (!properties) return undefined
    const { topicAlias, messageExpiryInterval } = properties
    if (messageExpiryInterval !== undefined)
      Object.assign(packet, { messageExpiry: Date.now() + messageExpiryInterval * 1000 })
    if (topicAlias === undefined) return undefined
    if (topicAlias < 1 || topicAlias > maxTopicAliases) {
      return new GatewayError('topic-alias-invalid', { hint: `it is not from 1 to ${maxTopicAliases}` })
    }
    connection.aliases ??= new Map()
    if (topic !== '') {
      connection.aliases.set(topicAlias, topic)
      return undefined
    }
    const known = connection.aliases.get(topicAlias)
    // A protocol error (§3.3.2.3.4).
    if (known === undefined) {
      return new GatewayError('topic-alias-invalid', {
        hint: 'it has no topic yet',
        mqttReason: reasonCodes.protocolError,
      })
    }
    Object.assign(packet, { topic: known })
    return undefined
  }

  #acknowledge(client: Client, { qos, id, failed, hasSubscribers }: Acknowledged): void {
    const type = qos === 1 ? 'puback' : 'pubrec'
    if (client.version === 5) {
      const reason = failed
        ? reasonOf(failed)
        : hasSubscribers
          ? reasonCodes.success
          : reasonCodes.noMatchingSubscribers
      const text = failed && client._requestProblemInformation ? textOf(failed) : undefined
      const bytes = encodeAcknowledgement(type, { id, reason, text })
      const isTooLarge = bytes.length > (this.#options.receiverOf(client)?.maximumPacketSize ?? 0)
      this.#write(client, isTooLarge ? encodeAcknowledgement(type, { id, reason }) : bytes) // [MQTT-3.4.2-2]
      return
    }
    // MQTT 3.1.1 cannot refuse a message: it is acknowledged like others [MQTT-3.3.5-2].
    if (failed === undefined || failed === notAuthorized) this.#write(client, encodeAcknowledgement(type, { id }))
    else client.emit('error', failed)
  }

  #write(client: Client, bytes: Buffer): void {
    if (!client.closed) this.#options.endOf(client)?.respond(bytes)
  }
}

interface Acknowledged {
  readonly qos: number
  readonly id: number
  readonly failed: Error | undefined
  readonly hasSubscribers: boolean
}

const notFound = { reason: reasonCodes.packetIdentifierNotFound }
const notAuthorized = new GatewayError('topic-refused')
const payloadInvalid = new GatewayError('malformed-packet', {
  hint: 'its payload is not UTF-8',
  mqttReason: reasonCodes.payloadFormatInvalid,
})

function reasonOf(error: Error): number {
  if (!(error instanceof GatewayError)) return reasonCodes.implementationSpecific
  // The client may have fewer; its connection goes on.
  return error.reason === 'identifiers-too-many' ? reasonCodes.quotaExceeded : error.mqttReason
}

function textOf(error: Error): string {
  return error instanceof GatewayError ? error.text : 'The broker failed to store the message'
}

/** Why a packet of MQTT 5 ends its connection. */
function refusalOf(client: Client, { cmd, properties }: ParsedPacket): GatewayError | undefined {
  const { protocolError: mqttReason } = reasonCodes
  if (cmd === 'connect') return new GatewayError('malformed-packet', { hint: 'it is a second CONNECT', mqttReason }) // [MQTT-3.1.0-2]
  if (cmd === 'auth') {
    return new GatewayError('malformed-packet', { hint: 'there is no authentication method', mqttReason }) // §4.12.1
  }
  const isLonger = cmd === 'disconnect' && (properties?.sessionExpiryInterval ?? 0) > 0
  if (isLonger && client._connectSessionExpiryInterval === 0) {
    return new GatewayError('malformed-packet', { hint: 'its session has no expiry interval', mqttReason }) // §3.14.2.2.2
  }
  return handledByBroker.has(cmd)
    ? undefined
    : new GatewayError('malformed-packet', { hint: 'it is of a server', mqttReason })
}

const handledByBroker = new Set([
  ...['publish', 'puback', 'pubrec', 'pubrel', 'pubcomp', 'subscribe', 'unsubscribe', 'pingreq', 'disconnect'],
])

/** [MQTT-3.3.2-4]: its payload format indicator says UTF-8, and it is not. */
function isInvalidText({ properties, payload }: PublishPacket): boolean {
  return properties?.payloadFormatIndicator === true && typeof payload !== 'string' && !isUtf8(payload)
}
