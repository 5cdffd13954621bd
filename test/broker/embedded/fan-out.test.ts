import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { generate, type IPublishPacket } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connect } from './mqtt-session.js'
import { connectRaw, type RawSession } from './raw-session.js'

const old = { protocolId: 'MQIsdp', protocolVersion: 3 } as const

/** One message that is published. */
interface Publication {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1
}

const publications = fc.array(
  fc.record<Publication>({
    topic: fc.constantFrom('fan/a', 'fan/b', 'fan/温度'),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 20 }).map(bytes => Buffer.from(bytes)),
      // Around the sizes from which on a message is not encoded once, and no chunk is copied.
      fc.constantFrom(0, 113, 114, 16_370, 16_384, 16_385, 40_000).map(size => Buffer.alloc(size, 'x')),
    ),
    qos: fc.constantFrom(0, 1),
  }),
  { minLength: 1, maxLength: 30 },
)

/** The packets that a subscriber gets, up to the last message. */
async function messages(session: RawSession): Promise<IPublishPacket[]> {
  const got: IPublishPacket[] = []
  for (;;) {
    const packet = await session.next()
    if (packet?.cmd !== 'publish') throw new Error(`there came ${packet?.cmd}`)
    if (packet.topic === 'fan/last') return got
    got.push(packet)
  }
}

const essence = ({ topic, payload, qos }: { topic: string; payload: string | Buffer; qos: number }) => ({
  topic,
  payload: Buffer.from(payload).toString('base64'),
  qos,
})

describe('subscribers of the same messages', () => {
  let broker: EmbeddedBroker

  beforeEach(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, createLog({ level: 'silent', format: 'json' }))
  })
  afterEach(() => broker.close())

  let runs = 0
  it('get each of them once, in order, with the QoS that each has, however they come', async () => {
    await fc.assert(
      fc.asyncProperty(publications, async list => {
        // A session would go on with what the last run left unacknowledged.
        const run = `run ${runs++}`
        const publisher = await connect(broker)
        const qos = [0, 1, 0, 1, 0] as const
        const subscribers = await Promise.all([
          connectRaw(broker, { clientId: `old ${run}`, clean: true, ...old }),
          connectRaw(broker, { clientId: `qos1 ${run}`, clean: true }),
          connectRaw(broker, { clientId: `qos0 ${run}`, clean: true }),
          connectRaw(broker, { clientId: `session1 ${run}`, clean: false }),
          connectRaw(broker, { clientId: `session0 ${run}`, clean: false }),
        ])
        for (const [index, { session }] of subscribers.entries()) {
          // Two filters match: nobody gets anything twice.
          expect(await session.subscribe(['fan/#', 'fan/+'], qos[index])).toEqual([qos[index], qos[index]])
        }
        const bytes = list.map(({ topic, payload, qos }, index) =>
          generate({ cmd: 'publish', topic, payload, qos, retain: false, dup: false, messageId: index + 1 }),
        )
        publisher.stream.write(Buffer.concat(bytes))
        await publisher.publish('fan/last', '', { qos: 1 })
        for (const [index, { session }] of subscribers.entries()) {
          const got = await messages(session)
          const wanted = list.map(one => ({ ...one, qos: Math.min(one.qos, qos[index] ?? 0) }))
          // A session's messages of QoS 1 are stored first; only those of the same QoS keep their order [MQTT-4.6.0-6].
          const isSession = index === 3
          const byQos = <T extends { qos: number }>(some: T[]): T[] =>
            isSession ? [...some].sort((a, b) => a.qos - b.qos) : some
          expect(byQos(got.map(essence))).toEqual(byQos(wanted.map(essence)))
          expect(got.every(({ retain, dup }) => !retain && !dup)).toBe(true)
          await session.end()
        }
        await publisher.end()
      }),
      { numRuns: 30 },
    )
  })

  it('see a retained message as one when they come later, and not when it is published', async () => {
    const publisher = await connect(broker)
    const early = await connect(broker)
    await early.subscribe('kept', 0)
    await publisher.publish('kept', 'message', { retain: true })
    expect(await early.next()).toMatchObject({ topic: 'kept', qos: 0, retain: false })
    const late = await connect(broker)
    await late.subscribe('kept', 0)
    expect(await late.next()).toMatchObject({ topic: 'kept', qos: 0, retain: true })
    await Promise.all([publisher.end(), early.end(), late.end()])
  })

  it('are counted, with every message and every byte that they got', async () => {
    const publisher = await connect(broker)
    const { session } = await connectRaw(broker, { clientId: 'counted', clean: true })
    await session.subscribe(['n/#'], 0)
    const before = broker.figures()
    const message = generate({
      cmd: 'publish',
      topic: 'n/1',
      payload: 'x'.repeat(200),
      qos: 0,
      dup: false,
      retain: false,
    })
    publisher.stream.write(Buffer.concat(Array<Buffer>(50).fill(message)))
    for (let count = 0; count < 50; count++) expect(await session.next()).toMatchObject({ cmd: 'publish' })
    const after = broker.figures()
    expect(after.publishesSent - before.publishesSent).toBe(50)
    expect(after.packetsSent - before.packetsSent).toBe(50)
    expect(after.bytesSent - before.bytesSent).toBe(50 * message.length)
    await Promise.all([publisher.end(), session.end()])
  })

  it('get nothing before CONNACK, whatever is published while their session is restored [MQTT-3.2.0-1]', async () => {
    const publisher = await connect(broker)
    const { session } = await connectRaw(broker, { clientId: 'back', clean: false })
    await session.subscribe(['#'], 0)
    await session.end()
    let isBack = false
    const flood = async (): Promise<void> => {
      while (!isBack) {
        publisher.client.publish('t', 'message')
        await turn()
      }
    }
    const flooding = flood()
    for (let count = 0; count < 50; count++) {
      const { session, sessionPresent } = await connectRaw(broker, { clientId: 'back', clean: false })
      expect(sessionPresent).toBe(true)
      expect(await session.next()).toMatchObject({ cmd: 'publish', topic: 't' })
      await session.end()
    }
    isBack = true
    await flooding
    await publisher.end()
  })
})
