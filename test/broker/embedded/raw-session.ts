import type { Duplex } from 'node:stream'
import { generate, type IConnectPacket, type Packet, parser } from 'mqtt-packet'
import type { Broker } from '../../../src/broker/broker.js'
import { somePeer } from './mqtt-session.js'

/** A client that sends what it is told to, also what MQTT.js would not, and acknowledges nothing by itself. */
export class RawSession {
  readonly stream: Duplex
  readonly #packets: Packet[] = []
  readonly #version: { readonly protocolVersion: number }
  #onChange: (() => void) | undefined

  constructor(stream: Duplex, protocolVersion = 4) {
    this.stream = stream
    this.#version = { protocolVersion }
    const packets = parser(this.#version)
    packets.on('packet', (packet: Packet) => {
      this.#packets.push(packet)
      this.#onChange?.()
    })
    stream.on('data', chunk => packets.parse(chunk))
    stream.on('error', () => {})
    stream.once('end', () => stream.end())
    stream.once('close', () => this.#onChange?.())
  }

  send(packet: Packet): this {
    this.stream.write(generate(packet, this.#version))
    return this
  }

  /** The next packet from the broker, or `undefined` when it has ended the connection. */
  async next(): Promise<Packet | undefined> {
    while (this.#packets.length === 0 && !this.stream.closed) {
      await new Promise<void>(resolve => {
        this.#onChange = resolve
      })
    }
    return this.#packets.shift()
  }

  /** Subscribes to all of `filters` in one packet; the answers, or `undefined` when the connection ended. */
  async subscribe(filters: readonly string[], qos: 0 | 1 | 2 = 1) {
    this.send({ cmd: 'subscribe', messageId: 1, subscriptions: filters.map(topic => ({ topic, qos })) })
    const packet = await this.next()
    return packet?.cmd === 'suback' ? packet.granted : undefined
  }

  /** Says goodbye, and waits for the end. */
  async end(): Promise<void> {
    this.send({ cmd: 'disconnect' })
    while (await this.next());
  }
}

/** Connects; resolves with the client and whether the broker had its session, `undefined` without CONNACK. */
export async function connectRaw(
  broker: Pick<Broker, 'open'>,
  options: Partial<IConnectPacket> & { clientId: string },
) {
  const session = new RawSession(await broker.open(somePeer), options.protocolVersion)
  session.send({ cmd: 'connect', keepalive: 0, ...options })
  const packet = await session.next()
  return { session, sessionPresent: packet?.cmd === 'connack' ? packet.sessionPresent : undefined }
}
