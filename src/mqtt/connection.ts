import type { Duplex } from 'node:stream'
import {
  generate,
  type IConnackPacket,
  type IPublishPacket,
  type IPubrecPacket,
  type ISubackPacket,
  type Packet,
  parser,
} from 'mqtt-packet'
import { explainConnectError, silenceHint } from '../base/connect-errors.js'
import { GatewayError } from '../base/errors.js'
import { answerError, ConnectionRefusal, disconnection, refusalOf } from './broker-responses.js'
import { InFlight, maxInFlight, type Settle } from './in-flight.js'
import { KeepAlive } from './keep-alive.js'
import type { Message, QoS } from './message.js'
import type { ProtocolProfile } from './protocol-profile.js'
import { publishSize } from './publishable.js'

/** What one connection needs. */
export interface ConnectionOptions {
  readonly stream: Duplex
  readonly dialect: ProtocolProfile
  readonly clientId: string
  /** Whether the broker is to forget what it kept for this client id, and to keep nothing. */
  readonly clean: boolean
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** In seconds; 0 for none. */
  readonly keepAlive: number
  /** How long the broker may take for CONNACK, in milliseconds. */
  readonly connectTimeout: number
  /** Called for each message, in order. Its payload may be part of a larger buffer. */
  readonly onMessage?: ((packet: IPublishPacket) => void) | undefined
}

/** For how long a broker keeps a session, in seconds: as MQTT 3.1.1 has it, until it is told otherwise (MQTT 5 §3.1.2.11.2). */
const sessionExpiryInterval = 0xffff_ffff

/**
 * How many publications are in flight where the broker cannot say: Aedes ends a connection with more than 1000 of QoS 2, and
 * mosquitto drops what is beyond 1020.
 */
const maxUntold = 500

/** How long a broker that has been told good-bye may take to close the connection, in milliseconds. */
const lingering = 250

/**
 * One MQTT connection as a client, from CONNECT to its end.
 *
 * It is this small because it does not have to survive anything: what comes back after a loss is another one.
 */
export class Connection {
  readonly #options: ConnectionOptions
  readonly #stream: Duplex
  readonly #keepAlive: KeepAlive
  #connack: IConnackPacket | undefined
  #onConnack: Settle | undefined
  #closed: Error | undefined
  #isLeaving = false
  readonly #onClosed: ((reason: Error) => void)[] = []
  readonly #inFlight = new InFlight()
  /** What waits for a PINGRESP, in order. */
  #pings: Settle[] = []
  #corked = false

  private constructor(options: ConnectionOptions) {
    this.#options = options
    this.#stream = options.stream
    this.#keepAlive = new KeepAlive(options.keepAlive, {
      ping: () => void this.ping().catch(() => {}),
      lost: () => this.destroy(new Error('the broker has gone silent')),
    })
    const incoming = parser({ protocolVersion: options.dialect.protocolVersion })
    incoming.on('packet', packet => this.#receive(packet))
    incoming.on('error', error => this.destroy(new Error('what the broker sends is no MQTT', { cause: error })))
    this.#stream.on('error', error => this.#close(this.#explain(error)))
    this.#stream.on('data', (chunk: Buffer) => {
      this.#keepAlive.received()
      if (!this.#closed) incoming.parse(chunk)
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
   * @throws {ConnectionRefusal} when the broker says no, or nothing
   */
  static async connect(options: ConnectionOptions): Promise<Connection> {
    const connection = new Connection(options)
    await connection.#handshake()
    return connection
  }

  /** Whether the broker still has the session. */
  get sessionPresent(): boolean {
    return this.#connack?.sessionPresent === true
  }

  get dialect(): ProtocolProfile {
    return this.#options.dialect
  }

  get closed(): boolean {
    return this.#closed !== undefined
  }

  /** Whether the broker takes more than QoS 0 (MQTT 5 §3.2.2.3.4), and so says that it has a message. */
  get acknowledges(): boolean {
    return this.#connack?.properties?.maximumQoS !== 0
  }

  /** Has `listener` told when the connection is over, and why; soon, where it is already. */
  onClosed(listener: (reason: Error) => void): void {
    if (this.#closed) queueMicrotask(() => listener(this.#closed ?? new Error()))
    else this.#onClosed.push(listener)
  }

  /**
   * @param qos the highest that messages come with
   * @param retained whether what is retained is to come; with MQTT 3.1.1 it does in any case
   * @returns the filters that the broker did not grant
   */
  async subscribe(filters: readonly string[], qos: 0 | 1, retained = true): Promise<readonly string[]> {
    const { retainAsPublished, protocolVersion } = this.#options.dialect
    // MQTT 5 §3.8.3.1.
    const options = protocolVersion === 5 ? { nl: false, rap: retainAsPublished, rh: retained ? 0 : 2 } : {}
    const subscriptions = filters.map(topic => ({ topic, qos, ...options }))
    const suback = await this.#ask(messageId => ({ cmd: 'subscribe', messageId, subscriptions }))
    const granted = (suback as ISubackPacket).granted
    return filters.filter((_, index) => Number(granted[index]) >= 0x80)
  }

  async unsubscribe(filters: readonly string[]): Promise<void> {
    await this.#ask(messageId => ({ cmd: 'unsubscribe', messageId, unsubscriptions: [...filters] }))
  }

  /** Resolves when the broker has answered; what it had sent before has come by then. */
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
   * Sees to it that the broker has not said that it does not take `message`: it would end the connection for it.
   *
   * @throws {GatewayError} `body-too-large`, `topic-refused` (MQTT 5 only)
   */
  requireTakes(message: Message): void {
    const { maximumPacketSize, retainAvailable } = this.#connack?.properties ?? {}
    // MQTT 5 has one byte more, which says that there are no properties.
    if (maximumPacketSize !== undefined && publishSize(message) + 1 > maximumPacketSize) {
      throw new GatewayError('body-too-large', { hint: `the broker takes packets of ${maximumPacketSize} bytes` })
    }
    if (message.retain && retainAvailable === false) {
      throw new GatewayError('topic-refused', { hint: 'the broker keeps no retained messages' })
    }
  }

  /**
   * Publishes; resolves when the broker has the message as surely as its QoS says, and for QoS 0 when it has been written.
   * A QoS that the broker does not take becomes the highest that it does (MQTT 5 §3.2.2.3.4).
   *
   * @throws {GatewayError} rejects with what the broker said against it (MQTT 5 only)
   * @throws {Error} rejects when the connection ends before
   */
  publish({ topic, payload, qos: wanted, retain }: Message): Promise<void> {
    const qos = lowerQos(wanted, this.#connack?.properties?.maximumQoS)
    const packet = { cmd: 'publish' as const, topic, payload, qos, retain, dup: false }
    return new Promise((resolve, reject) => {
      const settle: Settle = error => (error ? reject(error) : resolve())
      if (this.#closed) settle(this.#closed)
      else if (this.#isLeaving) settle(new Error('the session is being closed'))
      else if (qos === 0) this.#write(packet, settle)
      else this.#inFlight.publish(this.#receiveMaximum, messageId => this.#write({ ...packet, messageId }), settle)
    })
  }

  /** Sends PUBACK. */
  acknowledge(messageId: number): void {
    // MQTT 5 takes this form for success, too (§3.4.2.1).
    if (!this.#closed) this.#send(Buffer.from([0x40, 2, messageId >> 8, messageId & 0xff]))
  }

  /** Reads no more from the broker; what has been read still comes. */
  pause(): void {
    this.#stream.pause()
    this.#keepAlive.paused = true
  }

  resume(): void {
    this.#keepAlive.paused = false
    if (!this.#closed) this.#stream.resume()
  }

  /**
   * Says good-bye when what is being published is acknowledged, and waits until the broker has heard it; or for a second.
   * Messages that come meanwhile are not taken.
   */
  async end(): Promise<void> {
    if (this.#closed) return
    this.#isLeaving = true
    await new Promise<void>(resolve => {
      const overdue = setTimeout(resolve, 1000)
      const done = (): void => {
        clearTimeout(overdue)
        resolve()
      }
      this.onClosed(done)
      // With something unread the end would be a reset, and what was acknowledged might be sent again to the next session.
      this.resume()
      this.#inFlight.whenIdle(() => {
        if (this.#closed) return
        this.#write({ cmd: 'disconnect' })
        this.#stream.end(() => setTimeout(done, lingering))
      })
    })
    this.destroy(new Error('the session was closed'))
  }

  destroy(reason: Error): void {
    this.#close(reason)
    this.#stream.destroy()
  }

  /** An error before CONNACK is the cause that there is no session, and is told to a person. */
  #explain(error: Error): Error {
    if (this.#connack) return error
    return new Error(`${explainConnectError(error)}${this.#tlsHint}`, { cause: error })
  }

  get #tlsHint(): string {
    return `; ${silenceHint('encrypted' in this.#stream)}`
  }

  #handshake(): Promise<void> {
    const { dialect, clientId, clean, keepAlive, username, password, connectTimeout } = this.#options
    const { protocolVersion, bridgeMode } = dialect
    return new Promise((resolve, reject) => {
      const silence = setTimeout(() => {
        this.destroy(new ConnectionRefusal(`no CONNACK within ${connectTimeout} ms`, false))
      }, connectTimeout)
      this.#onConnack = error => {
        clearTimeout(silence)
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
    else if (packet.cmd === 'publish') this.#receivePublish(packet)
    else if (packet.cmd === 'pubrec') this.#receivePubrec(packet)
    else if (packet.cmd === 'pingresp') this.#pings.shift()?.(undefined)
    else if (packet.cmd === 'disconnect')
      this.destroy(disconnection(packet.reasonCode, packet.properties?.reasonString))
    else if (packet.messageId !== undefined) this.#settle(packet.messageId, packet)
  }

  #receiveConnack(packet: Packet): void {
    if (packet.cmd !== 'connack') {
      this.destroy(new ConnectionRefusal('its first answer is no CONNACK', true))
      return
    }
    const code = packet.returnCode || packet.reasonCode || 0
    if (code !== 0) {
      this.destroy(refusalOf(code, packet.properties?.reasonString))
      return
    }
    this.#connack = packet
    // MQTT 5 §3.2.2.3.14: the broker's own counts.
    this.#keepAlive.start(packet.properties?.serverKeepAlive)
    this.#onConnack?.(undefined)
  }

  #receivePublish(packet: IPublishPacket): void {
    if (packet.qos === 2) this.destroy(new Error('the broker sent QoS 2 for a subscription of QoS 1'))
    else if (!this.#isLeaving) this.#options.onMessage?.(packet)
  }

  #receivePubrec(packet: IPubrecPacket): void {
    const { messageId = 0, reasonCode = 0 } = packet
    if (reasonCode >= 0x80) this.#settle(messageId, packet)
    else this.#write({ cmd: 'pubrel', messageId })
  }

  #settle(messageId: number, packet: Packet): void {
    const code = 'reasonCode' in packet ? (packet.reasonCode ?? 0) : 0
    this.#inFlight.answer(messageId, answerError(code), packet)
  }

  get #receiveMaximum(): number {
    if (this.#options.dialect.protocolVersion !== 5) return maxUntold
    return this.#connack?.properties?.receiveMaximum ?? maxInFlight
  }

  #ask(packet: (messageId: number) => Packet): Promise<Packet> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(this.#closed)
        return
      }
      const messageId = this.#inFlight.take((error, answer) => {
        if (error || !answer) reject(error)
        else resolve(answer)
      })
      this.#write(packet(messageId))
    })
  }

  #write(packet: Packet, done?: Settle): void {
    this.#send(generate(packet, { protocolVersion: this.#options.dialect.protocolVersion }), done)
  }

  /** What is written in one turn leaves together. */
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
    // A broker that does not know what it reads may as well just close.
    const refusal =
      reason instanceof ConnectionRefusal ? reason : new ConnectionRefusal(reason.message, true, { cause: reason })
    this.#onConnack?.(refusal)
    this.#inFlight.close(reason)
    for (const settle of this.#pings.splice(0)) settle(reason)
    for (const listener of this.#onClosed.splice(0)) listener(reason)
  }
}

function lowerQos(wanted: QoS, maximum = 2): QoS {
  return wanted <= maximum ? wanted : maximum === 0 ? 0 : 1
}
