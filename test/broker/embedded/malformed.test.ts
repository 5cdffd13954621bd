import { once } from 'node:events'
import fc from 'fast-check'
import { generate, type Packet } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connect, somePeer } from './mqtt-session.js'

const log = createLog({ level: 'silent', format: 'json' })

const topics = fc.oneof(
  fc.constantFrom('', '#', '+', '$SYS/x', 'a/#/b', 'a+', '__proto__', '/'.repeat(200), 'constructor', '\0', 'a/b'),
  fc.string({ maxLength: 20 }),
)
const qos = fc.constantFrom<0 | 1 | 2>(0, 1, 2)
const id = fc.integer({ min: 1, max: 3 })
const payload = fc.string({ maxLength: 50 })
const packets: fc.Arbitrary<Packet> = fc.oneof(
  fc.record({
    cmd: fc.constant('publish' as const),
    topic: topics,
    payload,
    qos,
    messageId: id,
    dup: fc.boolean(),
    retain: fc.boolean(),
  }),
  fc.record({
    cmd: fc.constant('subscribe' as const),
    messageId: id,
    subscriptions: fc.array(fc.record({ topic: topics, qos }), { minLength: 1, maxLength: 3 }),
  }),
  fc.record({
    cmd: fc.constant('unsubscribe' as const),
    messageId: id,
    unsubscriptions: fc.array(topics, { minLength: 1, maxLength: 3 }),
  }),
  fc.record({
    cmd: fc.constantFrom('puback' as const, 'pubrec' as const, 'pubrel' as const, 'pubcomp' as const),
    messageId: id,
  }),
  fc.constant<Packet>({ cmd: 'pingreq' }),
  fc.constant<Packet>({ cmd: 'disconnect' }),
)
const connects: fc.Arbitrary<Packet> = fc.record(
  {
    cmd: fc.constant('connect' as const),
    clientId: fc.constantFrom('a', 'b', '__proto__', 'toString'),
    clean: fc.boolean(),
    protocolVersion: fc.constantFrom<3 | 4 | 5>(3, 4, 5),
    protocolId: fc.constant('MQTT' as const),
    keepalive: fc.nat(3),
    will: fc.record({ topic: topics.filter(topic => topic !== ''), payload, qos, retain: fc.boolean() }),
  },
  { requiredKeys: ['cmd', 'clientId', 'clean', 'protocolVersion', 'protocolId', 'keepalive'] },
)
/** One byte of a stream, changed. */
const mutations = fc.array(fc.record({ at: fc.nat(10_000), value: fc.nat(255) }), { maxLength: 4 })

function encode(packet: Packet): Buffer {
  try {
    return generate(packet)
  } catch {
    return Buffer.alloc(0)
  }
}

describe('malformed packets', () => {
  let broker: EmbeddedBroker
  beforeAll(async () => {
    broker = await createEmbedded({ data: 'none', ...limits, maxPacketSize: 1024 ** 2 }, log)
  })
  afterAll(() => broker.close())

  it('end the connection that sent them, and nothing else', async () => {
    const bystander = await connect(broker)
    await bystander.subscribe('bystander', 1)
    const conversation = fc.record({
      first: fc.option(connects, { nil: undefined, freq: 10 }),
      rest: fc.array(packets, { maxLength: 8 }),
      mutations,
      cut: fc.nat(200),
    })
    let conversations = 0
    await fc.assert(
      fc.asyncProperty(conversation, async ({ first, rest, mutations, cut }) => {
        const bytes = Buffer.concat([...(first ? [first] : []), ...rest].map(encode))
        for (const { at, value } of mutations) if (bytes.length > 0) bytes[at % bytes.length] = value
        const stream = await broker.open(somePeer)
        stream.on('error', () => {}).resume()
        stream.write(bytes.subarray(0, cut))
        stream.end(bytes.subarray(cut))
        await Promise.race([once(stream, 'close'), new Promise(resolve => stream.once('error', resolve))])
        stream.destroy()
        conversations++
        if (conversations % 100 === 0) {
          await bystander.publish('bystander', String(conversations), { qos: 1 })
          expect(await bystander.text()).toBe(String(conversations))
        }
      }),
      { numRuns: 3000 },
    )
    await bystander.end()
  })

  it.each([
    ['too large', Buffer.from([0x30, 0x81, 0x80, 0x40]), 'packet-too-large'],
    ['with a length that none has', Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff]), 'not-mqtt'],
  ])('a packet %s is named in the ending', async (_, bytes, reason) => {
    const stream = await broker.open(somePeer)
    stream.write(encode({ cmd: 'connect', clientId: 'x', clean: true }))
    await once(stream, 'data')
    stream.write(bytes)
    const error = await new Promise(resolve => stream.once('error', resolve))
    expect(error).toMatchObject({ name: 'GatewayError', reason })
  })

  it('what a client publishes to $SYS reaches nobody', async () => {
    const [watcher, liar] = [await connect(broker), await connect(broker)]
    await watcher.subscribe('$SYS/#')
    await liar.publish('$SYS/broker/version', 'nonsense', { qos: 1 })
    const probe = await connect(broker)
    await probe.subscribe('$SYS/broker/version')
    expect(await probe.text()).toMatch(/^mqway version /)
    expect(watcher.messages.map(({ payload }) => String(payload))).not.toContain('nonsense')
    await Promise.all([watcher.end(), liar.end(), probe.end()])
  })
})
