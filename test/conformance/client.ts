import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  type AcknowledgementType,
  acknowledgement,
  type ConnectOptions,
  connectPacket,
  decodePacket,
  type Filter,
  type Properties,
  type Publish,
  type PublishOptions,
  packetSize,
  publishPacket,
  type Received,
  subscribePacket,
  unsubscribePacket,
  Violation,
} from './packets.js'

/** The packet of a type. */
type Of<Type extends Received['type'], One = Received> = One extends { type: string }
  ? Type extends One['type']
    ? One
    : never
  : never

/** How long a packet of the server may take; every test gets its answers in milliseconds. */
const maxWait = Number(process.env['CONFORMANCE_WAIT'] ?? 10_000)

/** Identifiers of clients are the same in no two runs: another broker may have sessions of the last one. */
const run = randomUUID().slice(0, 6)
let clients = 0

/** A client that sends exactly what a test says, and checks everything that the server sends. */
export class Client {
  /** A client identifier of its own. */
  readonly id = `client-${run}-${++clients}`
  readonly #stream: Duplex
  #bytes = Buffer.alloc(0)
  readonly #packets: Received[] = []
  #isOver = false
  #violation: Error | undefined
  #onChange = (): void => {}
  // What the server must keep to on this connection.
  #properties: Properties = {}
  #isConnected = false
  #isDisconnected = false
  readonly #aliases = new Map<number, string>()
  /** Identifiers of the server's PUBLISH packets that have not been acknowledged. */
  readonly #unacknowledged = new Set<number>()
  #lastId = 0

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('error', () => {})
    stream.on('data', (chunk: Buffer) => this.#read(chunk))
    for (const event of ['end', 'close'] as const)
      stream.once(event, () => {
        this.#isOver = true
        stream.end()
        this.#onChange()
      })
  }

  static async open(port: number): Promise<Client> {
    const socket = connectTcp({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
    await once(socket, 'connect')
    return new Client(socket)
  }

  #read(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk])
    try {
      for (;;) {
        const size = packetSize(this.#bytes)
        if (size === undefined) break
        this.#packets.push(this.#checked(decodePacket(this.#bytes.subarray(0, size)), size))
        this.#bytes = this.#bytes.subarray(size)
      }
    } catch (error) {
      this.#violation = error as Error
    }
    this.#onChange()
  }

  /** Checks a packet against what this connection allows; gives a PUBLISH its topic where it has an alias alone. */
  #checked(received: Received, size: number): Received {
    const { maximumPacketSize, requestProblemInformation } = this.#properties
    const broken = (what: string): never => {
      throw new Violation(what)
    }
    if (this.#isDisconnected) broken('a packet follows a DISCONNECT [MQTT-3.14.4-1]')
    if (!this.#isConnected && received.type !== 'connack' && received.type !== 'auth')
      broken('CONNACK is not the first packet [MQTT-3.2.0-1]')
    if (this.#isConnected && received.type === 'connack') broken('there is a second CONNACK [MQTT-3.2.0-2]')
    if (maximumPacketSize !== undefined && size > maximumPacketSize) broken('a packet is too large [MQTT-3.1.2-24]')
    if (received.type === 'pingresp') return received
    if (received.type === 'connack') this.#isConnected = true
    if (received.type === 'disconnect') this.#isDisconnected = true
    const { reasonString, userProperties } = received.properties
    if (requestProblemInformation === 0 && !['publish', 'connack', 'disconnect'].includes(received.type)) {
      if (reasonString !== undefined || userProperties) broken('an acknowledgement tells a reason [MQTT-3.1.2-29]')
    }
    return received.type === 'publish' ? this.#checkedPublish(received, broken) : received
  }

  #checkedPublish(received: Publish, broken: (what: string) => never): Publish {
    const { topicAliasMaximum = 0, receiveMaximum = 65_535 } = this.#properties
    const { id, dup, properties } = received
    if (received.qos > 0) {
      if (this.#unacknowledged.has(id) && !dup) broken('a packet identifier is in use [MQTT-2.2.1-4]')
      this.#unacknowledged.add(id)
      if (this.#unacknowledged.size > receiveMaximum)
        broken('there are too many unacknowledged messages [MQTT-3.3.4-9]')
    }
    const alias = properties.topicAlias
    if (alias === undefined) return received
    if (alias > topicAliasMaximum) broken('a topic alias is too large [MQTT-3.1.2-26]')
    if (received.topic !== '') this.#aliases.set(alias, received.topic)
    return { ...received, topic: this.#aliases.get(alias) ?? broken('a topic alias is unknown') }
  }

  send(...packets: readonly Buffer[]): this {
    this.#stream.write(Buffer.concat(packets))
    return this
  }

  /** The next packet; `undefined` after the end of the connection. @throws {Violation} for what a server may not send */
  async next(): Promise<Received | undefined> {
    await this.#until(() => this.#packets.length > 0)
    return this.#packets.shift()
  }

  /** The next packet of one type; those of other types stay. */
  async take<Type extends Received['type']>(type: Type): Promise<Of<Type>> {
    const index = (): number => this.#packets.findIndex(each => each.type === type)
    await this.#until(() => index() >= 0)
    if (index() < 0)
      throw new Error(`the connection ended instead of ${type}; there were ${JSON.stringify(this.#packets)}`)
    return this.#packets.splice(index(), 1)[0] as Of<Type>
  }

  async #until(isThere: () => boolean): Promise<void> {
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      this.#onChange()
    }, maxWait)
    while (!isThere() && !this.#isOver && !this.#violation && !isLate) {
      await new Promise<void>(resolve => {
        this.#onChange = resolve
      })
    }
    clearTimeout(timer)
    if (isThere()) return
    if (this.#violation) throw this.#violation
    if (isLate) throw new Error(`nothing came; there were ${JSON.stringify(this.#packets)}`)
  }

  /** Connects with this client's identifier unless told otherwise; the CONNACK, with whatever code. */
  async connect(options: ConnectOptions = {}): Promise<Of<'connack'>> {
    if (options.properties && !Buffer.isBuffer(options.properties)) this.#properties = options.properties
    this.send(connectPacket({ clientId: this.id, ...options }))
    return this.take('connack')
  }

  packetId(): number {
    this.#lastId = (this.#lastId % 65_535) + 1
    return this.#lastId
  }

  /** Subscribes; the reason codes. */
  async subscribe(filters: Filter | readonly Filter[], properties?: Properties): Promise<readonly number[]> {
    const list = (
      typeof filters === 'string' || typeof filters[1] === 'number' ? [filters] : filters
    ) as readonly Filter[]
    this.send(subscribePacket(this.packetId(), list, properties))
    return (await this.take('suback')).codes
  }

  async unsubscribe(...filters: readonly string[]): Promise<readonly number[]> {
    this.send(unsubscribePacket(this.packetId(), filters))
    return (await this.take('unsuback')).codes
  }

  /** Publishes and completes the exchange; the reason code of PUBACK or PUBREC, 0 for QoS 0. */
  async publish(topic: string, payload = '', options: PublishOptions = {}): Promise<number> {
    const id = options.id ?? this.packetId()
    this.send(publishPacket(topic, payload, { ...options, id }))
    if (!options.qos) return 0
    const { code } = await this.take(options.qos === 1 ? 'puback' : 'pubrec')
    if (options.qos === 2 && code < 0x80) {
      this.send(acknowledgement('pubrel', id))
      await this.take('pubcomp')
    }
    return code
  }

  /** The next message, of which the exchange is completed. */
  async message(): Promise<Publish> {
    const received = await this.take('publish')
    if (received.qos === 1) this.acknowledge('puback', received.id)
    if (received.qos === 2) {
      this.send(acknowledgement('pubrec', received.id))
      const { id } = await this.take('pubrel')
      this.acknowledge('pubcomp', id)
    }
    return received
  }

  /** Sends PUBACK, PUBCOMP, or a PUBREC that refuses: the message is acknowledged. */
  acknowledge(type: Exclude<AcknowledgementType, 'pubrel'>, id: number, code?: number): void {
    this.#unacknowledged.delete(id)
    this.send(acknowledgement(type, id, code))
  }

  /** Payloads of the messages before `marker`. */
  async payloadsBefore(marker: string): Promise<string[]> {
    const payloads: string[] = []
    for (;;) {
      const { payload } = await this.message()
      if (payload === marker) return payloads
      payloads.push(payload)
    }
  }

  /** Waits for the server to end the connection; the reason code of its CONNACK or DISCONNECT, `undefined` where it gave none. */
  async refused(): Promise<number | undefined> {
    let code: number | undefined
    for (;;) {
      const received = await this.next()
      if (!received) return code
      if (received.type === 'connack' || received.type === 'disconnect') code = received.code
    }
  }

  /** Sends a DISCONNECT, and waits for the end. */
  async disconnect(...bytes: readonly Buffer[]): Promise<void> {
    this.send(...(bytes.length > 0 ? bytes : [Buffer.from([0xe0, 0])]))
    await this.refused()
    this.destroy()
  }

  /** Ends the connection as a failing network does. */
  destroy(): void {
    this.#stream.destroy()
  }
}
