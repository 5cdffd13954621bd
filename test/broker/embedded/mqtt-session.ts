import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { type IClientOptions, type IPublishPacket, MqttClient } from 'mqtt'
import type { Broker, Peer } from '../../../src/broker/broker.js'

export const somePeer: Peer = { address: '192.0.2.7', port: 50_000, localAddress: '192.0.2.1', localPort: 443 }

/** What a subscriber got. */
export interface Message {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: number
  readonly retain: boolean
}

/** One MQTT.js client on one stream of a broker; what it gets waits in line to be asked for. */
export class Session {
  readonly client: MqttClient
  readonly stream: Duplex
  readonly messages: Message[] = []
  #onMessage: (() => void) | undefined

  constructor(stream: Duplex, options: IClientOptions) {
    this.stream = stream
    // MQTT.js waits for the stream to close, and this one is half-open.
    stream.once('end', () => stream.end())
    this.client = new MqttClient(() => stream, {
      reconnectPeriod: 0,
      connectTimeout: 20_000,
      keepalive: 0,
      ...options,
      ...(options.protocolVersion === 3 ? { protocolId: 'MQIsdp' } : {}),
    })
    this.client.on('error', () => {})
    this.client.on('message', (topic, payload, packet: IPublishPacket) => {
      this.messages.push({ topic, payload, qos: packet.qos, retain: packet.retain })
      this.#onMessage?.()
    })
  }

  /** Resolves with CONNACK; rejects when the connection ends before. */
  connected(): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.client.once('connect', () => resolve())
      this.client.once('error', reject)
      this.client.once('close', () => reject(new Error('closed before CONNACK')))
    })
  }

  closed(): Promise<void> {
    return new Promise(resolve => this.client.once('close', () => resolve()))
  }

  /** The next message, in the order in which they came. */
  async next(): Promise<Message> {
    for (;;) {
      const message = this.messages.shift()
      if (message) return message
      await new Promise<void>(resolve => {
        this.#onMessage = resolve
      })
    }
  }

  /** The next message as text. */
  async text(): Promise<string> {
    return (await this.next()).payload.toString()
  }

  subscribe(filter: string, qos: 0 | 1 | 2 = 0) {
    return this.client.subscribeAsync(filter, { qos })
  }

  publish(topic: string, payload: string | Buffer, options: { qos?: 0 | 1 | 2; retain?: boolean } = {}) {
    return this.client.publishAsync(topic, payload, options)
  }

  /** Says goodbye, and waits until the stream is closed. */
  async end(): Promise<void> {
    if (!this.client.disconnecting) await this.client.endAsync()
    if (!this.stream.closed) {
      const closed = once(this.stream, 'close')
      this.stream.destroy()
      await closed
    }
  }
}

/** Connects to `broker`; rejects with what it was refused for. */
export async function connect(broker: Pick<Broker, 'open'>, options: IClientOptions = {}): Promise<Session> {
  const session = new Session(await broker.open(somePeer), options)
  await session.connected()
  return session
}
