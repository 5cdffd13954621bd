import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generate, type Packet, parser } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connect, somePeer } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })

interface Received {
  readonly topic: string
  readonly text: string
}

/** A subscriber of MQTT 5 with a session and a receive maximum. */
class Subscriber {
  readonly received: Received[] = []
  readonly #unacknowledged: number[] = []
  #onPacket: (packet: Packet) => void = () => {}
  /** The most messages that it had without acknowledgement. */
  most = 0
  readonly #stream

  constructor(stream: Awaited<ReturnType<EmbeddedBroker['open']>>) {
    this.#stream = stream
    const packets = parser({ protocolVersion: 5 })
    packets.on('packet', (packet: Packet) => {
      if (packet.cmd === 'publish') {
        const { topic, payload, messageId = 0 } = packet
        this.received.push({ topic, text: `${payload}` })
        this.most = Math.max(this.most, this.#unacknowledged.push(messageId))
      }
      this.#onPacket(packet)
    })
    stream.on('data', bytes => packets.parse(bytes))
  }

  send(...sent: Packet[]): void {
    this.#stream.write(Buffer.concat(sent.map(packet => generate(packet, { protocolVersion: 5 }))))
  }

  /** Resolves with the next packet of a type. */
  next(cmd: Packet['cmd']): Promise<Packet> {
    return new Promise(resolve => {
      this.#onPacket = packet => packet.cmd === cmd && resolve(packet)
    })
  }

  /** Acknowledges messages until it has `count` of the topic `queued`. @param further is sent with each acknowledgement of those */
  async acknowledgeUntil(count: number, ...further: Packet[]): Promise<void> {
    while (this.queued.length < count) {
      const messageId = this.#unacknowledged.shift()
      if (messageId === undefined) await this.next('publish')
      else this.send({ cmd: 'puback', messageId }, ...(this.received.at(-1)?.topic === 'queued' ? further : []))
    }
  }

  get queued(): string[] {
    return this.received.filter(({ topic }) => topic === 'queued').map(({ text }) => text)
  }

  close(): void {
    this.#stream.destroy()
  }
}

const subscribe = (topic: string): Packet => ({
  ...{ cmd: 'subscribe', messageId: 1 },
  subscriptions: [{ topic, qos: 1, nl: false, rap: false, rh: 0 }],
})

describe.each(['memory', 'disk'])('with sessions in %s', kept => {
  let directory: string
  let broker: EmbeddedBroker
  let publisher: Awaited<ReturnType<typeof connect>>
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    broker = await createEmbedded({ ...limits, data: kept === 'disk' ? directory : 'none' }, log)
    publisher = await connect(broker)
  })
  afterEach(async () => {
    await broker.close()
    await rm(directory, { recursive: true })
  })

  async function open(receiveMaximum: number, ...further: Packet[]): Promise<Subscriber> {
    const subscriber = new Subscriber(await broker.open(somePeer))
    const connack = subscriber.next('connack')
    const properties = { sessionExpiryInterval: 1000, receiveMaximum }
    const options = { clientId: 'subscriber', clean: false, keepalive: 0, protocolVersion: 5, properties } as const
    subscriber.send({ cmd: 'connect', ...options }, ...further)
    await connack
    return subscriber
  }

  async function publish(count: number): Promise<string[]> {
    const texts = Array.from({ length: count }, (_, index) => `${index}`)
    await Promise.all(texts.map(text => publisher.publish('queued', text, { qos: 1 })))
    return texts
  }

  it('a client that returns with a smaller receive maximum gets no more messages at once, but all of them, in order', async () => {
    const first = await open(100)
    first.send(subscribe('queued'))
    await first.next('suback')
    const texts = await publish(5)
    while (first.received.length < 5) await first.next('publish')
    first.close()

    const second = await open(2)
    await second.acknowledgeUntil(5)
    expect(second.queued).toEqual(texts)
    expect(second.most).toBe(2)
  })

  it('a client with a receive maximum of 1 gets queued messages also where it subscribes to retained ones between them', async () => {
    await Promise.all([1, 2, 3].map(one => publisher.publish(`state/${one}`, 'on', { qos: 1, retain: true })))
    const subscriber = await open(1)
    subscriber.send(subscribe('queued'))
    await subscriber.next('suback')
    const published = publish(200)
    await subscriber.acknowledgeUntil(200, subscribe('state/+'))
    const texts = await published
    expect(subscriber.most).toBe(1)
    expect(subscriber.queued).toEqual(texts)
  })
})

it('messages that wait for acknowledgements count as buffered: the client with too many is closed', async () => {
  // At least four of the largest packets, of which one address has half.
  const options = { ...limits, maxPacketSize: 2 ** 16, maxBufferedBytes: 1, data: 'none' }
  const broker = await createEmbedded(options, log)
  const publisher = await connect(broker)
  const { session } = await connectRaw(broker, {
    ...{ clientId: 'silent', clean: true, protocolVersion: 5, properties: { receiveMaximum: 1 } },
  })
  await session.subscribe(['queued'])
  const closed = expect(once(session.stream, 'close')).rejects.toThrow('The client reads too slowly')
  let isOpen = true
  const flood = async (): Promise<void> => {
    for (let sent = 0; isOpen && sent < 16_000; sent++) await publisher.publish('queued', '', { qos: 1 })
  }
  const flooded = flood()
  await closed
  isOpen = false
  await flooded
  await publisher.end()
  await broker.close()
})
