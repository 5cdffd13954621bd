import type { Duplex } from 'node:stream'
import {
  generate,
  type IConnackPacket,
  type IPubrecPacket,
  type ISubackPacket,
  type Packet,
  type Parser,
  parser,
} from 'mqtt-packet'
import { explainConnectError, silenceHint } from '../base/connect-errors.js'
import { GatewayError } from '../base/errors.js'
import { ConnectionRefusal, disconnection, reasonCodeError, refusalOf } from './broker-responses.js'
import { MalformedPacket } from './fields.js'
import { InFlight, maxInFlight, type Settle } from './in-flight.js'
import { KeepAlive } from './keep-alive.js'
import { type Message, publishSize, type QoS } from './message.js'
import { PacketSplitter } from './packet-splitter.js'
import type { ProtocolProfile } from './protocol-profile.js'
import { encodeMessage, type ReceivedMessage, readPublish, receivedMessage } from './publish-packet.js'

export interface ConnectionOptions {
  readonly stream: Duplex
  readonly profile: ProtocolProfile
  readonly clientId: string
  /** Clean session (MQTT 3.1.1) or clean start (MQTT 5). */
  readonly clean: boolean
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** Keep-alive in seconds; 0 for none. */
  readonly keepAlive: number
  /** Timeout of CONNACK, in milliseconds. */
  readonly connectTimeout: number
  /** Called for each message, in order. The payload may be a slice of a larger buffer. */
  readonly onMessage?: ((message: ReceivedMessage) => void) | undefined
}

/** The session never expires, as in MQTT 3.1.1 (MQTT 5 §3.1.2.11.2). */
const sessionExpiryInterval = 0xffff_ffff

/**
 * Publications in flight in MQTT 3.1.1, which has no receive maximum: Aedes closes a connection with more than 1000 of QoS 2, and
 * mosquitto drops messages beyond 1020.
 */
const defaultReceiveMaximum = 500

/** The packet type of PUBLISH (MQTT 5 §2.1.2). */
const publishType = 3

/** How long the broker may take to close the connection after DISCONNECT, in milliseconds. */
const closeTimeout = 250

/**
 * An MQTT client connection, from CONNECT to its end. It does not reconnect; see `ReconnectingConnection`.
 */
export class Connection {
  readonly #options: ConnectionOptions
  readonly #stream: Duplex
  readonly #keepAlive: KeepAlive
  #connack: IConnackPacket | undefined
  #onConnack: Settle | undefined
  #closed: Error | undefined
  #isEnding = false
  readonly #onClosed: ((reason: Error) => void)[] = []
  readonly #inFlight = new InFlight()
  #pings: Settle[] = []
  #corked = false

  private constructor(options: ConnectionOptions) {
    this.#options = options
    this.#stream = options.stream
    this.#keepAlive = new KeepAlive(options.keepAlive, {
      ping: () => void this.ping().catch(() => {}),
      lost: () => this.destroy(new Error('the broker does not respond')),
    })
    const incoming = parser({ protocolVersion: options.profile.protocolVersion })
    incoming.on('packet', packet => this.#receive(packet))
    const onInvalid = (error: unknown): void => {
      const text = this.#connack ? 'the broker sent an invalid MQTT packet' : 'it does not speak MQTT'
      this.destroy(new Error(text, { cause: error }))
    }
    incoming.on('error', onInvalid)
    const parse =
      options.profile.protocolVersion === 5 ? this.#splitter(incoming, onInvalid) : incoming.parse.bind(incoming)
    this.#stream.on('error', error => this.#close(this.#explain(error)))
    this.#stream.on('data', (chunk: Buffer) => {
      this.#keepAlive.received()
      if (!this.#connack && isTlsAlert(chunk)) this.destroy(new Error(`it speaks TLS; ${silenceHint(false)}`))
      if (!this.#closed) parse(chunk)
    })
    this.#stream.on('end', () =>
      this.destroy(
        new Error(
          this.#connack
            ? 'the broker closed the connection'
            : `it closed the connection without CONNACK${this.#tlsHint}`,
        ),
      ),
    )
    this.#stream.on('close', () => this.#close(new Error('the connection was lost')))
  }

  /**
   * Sends CONNECT and waits for CONNACK.
   *
   * @throws {ConnectionRefusal} if the broker refuses the connection, or does not respond
   */
  static async connect(options: ConnectionOptions): Promise<Connection> {
    const connection = new Connection(options)
    await connection.#handshake()
    return connection
  }

  /** The session-present flag of CONNACK. */
  get sessionPresent(): boolean {
    return this.#connack?.sessionPresent === true
  }

  get profile(): ProtocolProfile {
    return this.#options.profile
  }

  get closed(): boolean {
    return this.#closed !== undefined
  }

  /** Whether the broker accepts more than QoS 0 (MQTT 5 §3.2.2.3.4). */
  get supportsQos1(): boolean {
    return this.#connack?.properties?.maximumQoS !== 0
  }

  /** Calls `listener` with the reason when the connection is closed; soon, if it already is. */
  onClosed(listener: (reason: Error) => void): void {
    if (this.#closed) queueMicrotask(() => listener(this.#closed ?? new Error()))
    else this.#onClosed.push(listener)
  }

  /**
   * @param qos maximum QoS of messages
   * @param retained whether to request retained messages; MQTT 3.1.1 always sends them
   * @returns the filters that the broker did not grant
   */
  async subscribe(filters: readonly string[], qos: 0 | 1, retained = true): Promise<readonly string[]> {
    const { retainAsPublished, protocolVersion } = this.#options.profile
    // MQTT 5 §3.8.3.1.
    const options = protocolVersion === 5 ? { nl: false, rap: retainAsPublished, rh: retained ? 0 : 2 } : {}
    const subscriptions = filters.map(topic => ({ topic, qos, ...options }))
    const suback = await this.#request(messageId => ({ cmd: 'subscribe', messageId, subscriptions }))
    const granted = (suback as ISubackPacket).granted
    return filters.filter((_, index) => Number(granted[index]) >= 0x80)
  }

  async unsubscribe(filters: readonly string[]): Promise<void> {
    await this.#request(messageId => ({ cmd: 'unsubscribe', messageId, unsubscriptions: [...filters] }))
  }

  /** Resolves with PINGRESP: everything that the broker sent before has been received. */
  ping(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(this.#closed)
        return
      }
      this.#pings.push(error => (error ? reject(error) : resolve()))
      this.#write({ cmd: 'pingreq' })
    })
  }

  /**
   * Checks `message` against the limits in CONNACK: the broker would close the connection.
   *
   * @throws {GatewayError} `body-too-large`, `topic-refused` (MQTT 5 only)
   */
  requireAccepted(message: Message): void {
    const { maximumPacketSize, retainAvailable } = this.#connack?.properties ?? {}
    // MQTT 5 has one byte more, for the length of the properties.
    if (maximumPacketSize !== undefined && publishSize(message) + 1 > maximumPacketSize) {
      throw new GatewayError('body-too-large', { hint: `the broker accepts packets of ${maximumPacketSize} bytes` })
    }
    if (message.retain && retainAvailable === false) {
      throw new GatewayError('topic-refused', { hint: 'the broker keeps no retained messages' })
    }
  }

  /**
   * Publishes; resolves with the acknowledgement of the broker, or for QoS 0 when the packet is written. The QoS is limited to the
   * broker's maximum (MQTT 5 §3.2.2.3.4).
   *
   * @throws {GatewayError} rejects with the broker's reason code (MQTT 5 only)
   * @throws {Error} rejects if the connection is closed before
   */
  publish(message: Message): Promise<void> {
    const qos = limitQos(message.qos, this.#connack?.properties?.maximumQoS)
    const write = (messageId?: number, done?: Settle): void => this.#writePublish({ ...message, qos }, messageId, done)
    return new Promise((resolve, reject) => {
      const settle: Settle = error => (error ? reject(error) : resolve())
      if (this.#closed) settle(this.#closed)
      else if (this.#isEnding) settle(new Error('the session is being closed'))
      else if (qos === 0) write(undefined, settle)
      else this.#inFlight.publish(this.#receiveMaximum, messageId => write(messageId), settle)
    })
  }

  acknowledge(messageId: number): void {
    // MQTT 5 allows this form for success (§3.4.2.1).
    if (!this.#closed) this.#send(Buffer.from([0x40, 2, messageId >> 8, messageId & 0xff]))
  }

  /** Stops reading; packets that have been read are still delivered. */
  pause(): void {
    this.#stream.pause()
    this.#keepAlive.paused = true
  }

  resume(): void {
    this.#keepAlive.paused = false
    if (!this.#closed) this.#stream.resume()
  }

  /**
   * Sends DISCONNECT when all publications are acknowledged, and waits until the broker closes the connection; at most a second.
   * Ignores messages meanwhile.
   */
  async end(): Promise<void> {
    if (this.#closed) return
    this.#isEnding = true
    await new Promise<void>(resolve => {
      const timeout = setTimeout(resolve, 1000)
      const done = (): void => {
        clearTimeout(timeout)
        resolve()
      }
      this.onClosed(done)
      // Closing with unread data would reset the connection, and acknowledgements could be lost.
      this.resume()
      this.#inFlight.whenIdle(() => {
        if (this.#closed) return
        this.#write({ cmd: 'disconnect' })
        this.#stream.end(() => setTimeout(done, closeTimeout))
      })
    })
    this.destroy(new Error('the session was closed'))
  }

  destroy(reason: Error): void {
    this.#close(reason)
    this.#stream.destroy()
  }

  /** Parses the stream of MQTT 5: PUBLISH here, with its properties as they are, and other packets with `incoming`. */
  #splitter(incoming: Parser, onInvalid: (error: unknown) => void): (chunk: Buffer) => void {
    const splitter = new PacketSplitter()
    return chunk => {
      try {
        for (const { bytes, headerLength } of splitter.push(chunk)) {
          const [first = 0] = bytes
          if (this.#closed) return
          if (this.#connack && first >> 4 === publishType)
            this.#receivePublish(readPublish(first, bytes.subarray(headerLength)))
          else incoming.parse(bytes)
        }
      } catch (error) {
        if (!(error instanceof MalformedPacket)) throw error
        onInvalid(error)
      }
    }
  }

  /** Explains an error before CONNACK to a person. */
  #explain(error: Error): Error {
    if (this.#connack) return error
    return new Error(`${explainConnectError(error)}${this.#tlsHint}`, { cause: error })
  }

  get #tlsHint(): string {
    return `; ${silenceHint('encrypted' in this.#stream)}`
  }

  #handshake(): Promise<void> {
    const { profile, clientId, clean, keepAlive, username, password, connectTimeout } = this.#options
    const { protocolVersion, bridgeMode } = profile
    return new Promise((resolve, reject) => {
      const timeout = setTimeout(() => {
        this.destroy(new ConnectionRefusal(`no CONNACK within ${connectTimeout} ms`, false))
      }, connectTimeout)
      this.#onConnack = error => {
        clearTimeout(timeout)
        this.#onConnack = undefined
        if (error) reject(error)
        else resolve()
      }
      const properties = protocolVersion === 5 && !clean ? { properties: { sessionExpiryInterval } } : {}
      const packet = {
        cmd: 'connect' as const,
        protocolVersion,
        bridgeMode,
        clientId,
        clean,
        keepalive: keepAlive,
        ...(username === undefined ? {} : { username }),
        ...(password === undefined ? {} : { password: Buffer.from(password) }),
        ...properties,
      }
      this.#write(packet)
    })
  }

  #receive(packet: Packet): void {
    if (this.#closed) return
    if (!this.#connack) this.#receiveConnack(packet)
    else if (packet.cmd === 'publish') this.#receivePublish(receivedMessage(packet))
    else if (packet.cmd === 'pubrec') this.#receivePubrec(packet)
    else if (packet.cmd === 'pingresp') this.#pings.shift()?.(undefined)
    else if (packet.cmd === 'disconnect')
      this.destroy(disconnection(packet.reasonCode, packet.properties?.reasonString))
    else if (packet.messageId !== undefined) this.#settle(packet.messageId, packet)
  }

  #receiveConnack(packet: Packet): void {
    if (packet.cmd !== 'connack') {
      this.destroy(new ConnectionRefusal('its first packet is no CONNACK', true))
      return
    }
    const code = packet.returnCode || packet.reasonCode || 0
    if (code !== 0) {
      this.destroy(refusalOf(code, packet.properties?.reasonString))
      return
    }
    this.#connack = packet
    // MQTT 5 §3.2.2.3.14: the broker's value takes precedence.
    this.#keepAlive.start(packet.properties?.serverKeepAlive)
    this.#onConnack?.(undefined)
  }

  #receivePublish(message: ReceivedMessage): void {
    if (message.qos === 2) this.destroy(new Error('the broker sent QoS 2 for a subscription of QoS 1'))
    else if (!this.#isEnding) this.#options.onMessage?.(message)
  }

  #receivePubrec(packet: IPubrecPacket): void {
    const { messageId = 0, reasonCode = 0 } = packet
    if (reasonCode >= 0x80) this.#settle(messageId, packet)
    else this.#write({ cmd: 'pubrel', messageId })
  }

  #settle(messageId: number, packet: Packet): void {
    const code = 'reasonCode' in packet ? (packet.reasonCode ?? 0) : 0
    this.#inFlight.settle(messageId, reasonCodeError(code), packet)
  }

  get #receiveMaximum(): number {
    if (this.#options.profile.protocolVersion !== 5) return defaultReceiveMaximum
    return this.#connack?.properties?.receiveMaximum ?? maxInFlight
  }

  #request(packet: (messageId: number) => Packet): Promise<Packet> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(this.#closed)
        return
      }
      const messageId = this.#inFlight.take((error, response) => {
        if (error || !response) reject(error)
        else resolve(response)
      })
      this.#write(packet(messageId))
    })
  }

  #write(packet: Packet, done?: Settle): void {
    this.#send(generate(packet, { protocolVersion: this.#options.profile.protocolVersion }), done)
  }

  /** MQTT 3.1.1 has no properties, and no expiry. */
  #writePublish(message: Message, messageId?: number, done?: Settle): void {
    if (this.#options.profile.protocolVersion === 5) {
      this.#send(encodeMessage(message, messageId), done)
      return
    }
    const { topic, payload, qos, retain } = message
    this.#write({ cmd: 'publish', topic, payload, qos, retain, dup: false, ...(messageId && { messageId }) }, done)
  }

  /** Packets of one tick are written together. */
  #send(bytes: Buffer, done?: Settle): void {
    if (!this.#corked) {
      this.#corked = true
      this.#stream.cork()
      setImmediate(() => {
        this.#corked = false
        this.#stream.uncork()
      })
    }
    this.#keepAlive.sent()
    if (done) this.#stream.write(bytes, error => done(error ?? undefined))
    else this.#stream.write(bytes)
  }

  #close(reason: Error): void {
    if (this.#closed) return
    this.#closed = reason
    this.#keepAlive.stop()
    // A broker that does not support the protocol version may just close.
    const refusal =
      reason instanceof ConnectionRefusal ? reason : new ConnectionRefusal(reason.message, true, { cause: reason })
    this.#onConnack?.(refusal)
    this.#inFlight.close(reason)
    for (const settle of this.#pings.splice(0)) settle(reason)
    for (const listener of this.#onClosed.splice(0)) listener(reason)
  }
}

/** Whether bytes are a TLS alert (RFC 8446 §5.1), a TLS server's response to other protocols. MQTT servers send no packets of type 1. */
function isTlsAlert(chunk: Buffer): boolean {
  return chunk[0] === 21 && chunk[1] === 3
}

function limitQos(qos: QoS, maximum = 2): QoS {
  return qos <= maximum ? qos : maximum === 0 ? 0 : 1
}
