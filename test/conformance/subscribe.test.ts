import { describe, expect, it } from 'vitest'
import { expectRefusal, testedBroker } from './broker.js'
import { noLocal, publishPacket, retainNever, subscribePacket, unsubscribePacket } from './packets.js'

const broker = testedBroker()
const lasting = { cleanStart: false, properties: { sessionExpiryInterval: 60 } } as const

describe('SUBSCRIBE', () => {
  it('[MQTT-3.8.3-2] without a filter ends the connection', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(subscribePacket(1, [])), 0x81, 0x82)
  })

  it('[MQTT-3.8.3-3] with “no local” the client’s own messages do not come', async () => {
    const [client, other] = [await broker.connect(lasting), await broker.connect()]
    await client.subscribe([
      ['own/#', noLocal | 1],
      ['marker/own', 0],
    ])
    for (const qos of [0, 1, 2]) await client.publish('own/x', 'own', { qos })
    await other.publish('own/x', 'other', { qos: 1 })
    await client.publish('marker/own', 'marker')
    expect((await client.payloadsBefore('marker')).filter(payload => payload === 'own')).toEqual([])
    // Neither on another connection of the same client.
    await client.disconnect()
    const again = await broker.connect({ ...lasting, clientId: client.id })
    await again.publish('own/x', 'own', { qos: 1 })
    await other.publish('own/x', 'marker', { qos: 1 })
    expect(await again.payloadsBefore('marker')).not.toContain('own')
  })

  it('[MQTT-3.8.3-4] “no local” on a shared subscription is a protocol error', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(subscribePacket(1, [['$share/g/t', noLocal]])), 0x82)
  })

  it.each([
    ['[MQTT-3.8.3-5] the reserved bit 6', 0x40],
    ['[MQTT-3.8.3-5] the reserved bit 7', 0x80],
    ['QoS 3', 0x03],
    ['retain handling 3', 0x30],
  ])('%s in its options ends the connection', async (_, options) => {
    const client = await broker.connect()
    await expectRefusal(client.send(subscribePacket(1, [['t', options]])), 0x81, 0x82)
  })

  it('a subscription identifier of 0, and two of them, are protocol errors', async () => {
    for (const given of ['0b00', '0b010b02']) {
      const client = await broker.connect()
      await expectRefusal(client.send(subscribePacket(1, ['t'], Buffer.from(given, 'hex'))), 0x81, 0x82)
    }
  })

  it('[MQTT-3.8.4-1] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2] SUBACK has a code for each filter, in their order', async () => {
    const client = await broker.connect()
    const filters = [
      ['codes/2', 2],
      ['codes/0', 0],
      ['codes/1', 1],
      ['codes/3/#', 2],
    ] as const
    expect(await client.subscribe(filters)).toEqual([2, 0, 1, 2])
    for (const topic of ['codes/2', 'codes/0', 'codes/1', 'codes/3/x']) {
      await client.publish(topic, topic)
      expect(await client.message()).toMatchObject({ topic })
    }
  })

  it('[MQTT-3.8.4-3] [MQTT-3.8.4-4] the same filter replaces a subscription, and no message is lost', async () => {
    const [client, publisher] = [await broker.connect(), await broker.connect()]
    await publisher.publish('replaced/x', 'retained', { retain: true, qos: 1 })
    await client.subscribe(['replaced/+', 2 | retainNever])
    // Retained messages come again with handling 0.
    expect(await client.subscribe(['replaced/+', 0])).toEqual([0])
    expect(await client.message()).toMatchObject({ payload: 'retained', retain: true })
    publisher.send(
      ...Array.from({ length: 15 }, (_, n) => publishPacket('replaced/x', String(n), { qos: 1, id: n + 1 })),
    )
    client.send(subscribePacket(50, [['replaced/+', 1 | retainNever]]))
    await publisher.publish('replaced/x', 'marker', { qos: 1 })
    expect(await client.payloadsBefore('marker')).toEqual(Array.from({ length: 15 }, (_, n) => String(n)))
    // One subscription is left, with the last QoS.
    await publisher.publish('replaced/x', 'last', { qos: 2 })
    expect(await client.message()).toMatchObject({ payload: 'last', qos: 1 })
    await publisher.publish('replaced/x', 'marker')
    expect(await client.payloadsBefore('marker')).toEqual([])
  })

  it('[MQTT-3.8.4-8] messages come with the smaller of the two QoS', async () => {
    const [client, publisher] = [await broker.connect(), await broker.connect()]
    await client.subscribe([0, 1, 2].map(qos => [`smaller/${qos}`, qos] as const))
    for (const granted of [0, 1, 2])
      for (const published of [0, 1, 2]) {
        await publisher.publish(`smaller/${granted}`, '', { qos: published })
        expect(await client.message()).toMatchObject({ qos: Math.min(granted, published) })
      }
  })

  it('a user property and a subscription identifier are allowed', async () => {
    const client = await broker.connect()
    const given = {
      subscriptionIdentifier: 5,
      userProperties: [
        ['a', 'b'],
        ['a', 'b'],
      ],
    } as const
    expect(await client.subscribe('allowed', given)).toEqual([0])
  })
})

describe('UNSUBSCRIBE', () => {
  it('[MQTT-3.10.3-2] without a filter ends the connection', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(unsubscribePacket(1, [])), 0x81, 0x82)
  })

  it('[MQTT-3.10.4-1] ends a subscription only by exactly its filter', async () => {
    const client = await broker.connect()
    await client.subscribe(['exact/+', 'exact/#', 'Exact/+'])
    expect(await client.unsubscribe('exact/x', 'EXACT/+', 'exact/+/')).toEqual([0x11, 0x11, 0x11])
    expect(await client.unsubscribe('exact/+')).toEqual([0])
    expect(await client.unsubscribe('exact/+')).toEqual([0x11])
  })

  it('[MQTT-3.10.4-2] ends the delivery of new messages', async () => {
    const client = await broker.connect()
    await client.subscribe(['ended/x', 'ended/marker'])
    await client.publish('ended/x', '1')
    await client.message()
    await client.unsubscribe('ended/x')
    await client.publish('ended/x', '2')
    await client.publish('ended/marker', 'marker')
    expect(await client.payloadsBefore('marker')).toEqual([])
  })

  it('[MQTT-3.10.4-3] exchanges that have begun are completed', async () => {
    const [client, publisher] = [await broker.connect(lasting), await broker.connect()]
    await client.subscribe(['begun', 2])
    await publisher.publish('begun', '1', { qos: 1 })
    await publisher.publish('begun', '2', { qos: 2 })
    const [one, two] = [await client.take('publish'), await client.take('publish')]
    await client.unsubscribe('begun')
    client.destroy()
    const next = await broker.connect({ ...lasting, clientId: client.id })
    expect(await next.message()).toMatchObject({ payload: '1', id: one.id, dup: true })
    expect(await next.message()).toMatchObject({ payload: '2', id: two.id, dup: true })
  })

  it('[MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] UNSUBACK has a code for each filter, in their order', async () => {
    const client = await broker.connect()
    await client.subscribe(['many/1', 'many/2', 'many/3'])
    expect(await client.unsubscribe('many/2', 'many/none', 'many/3', 'many/2')).toEqual([0, 0x11, 0, 0x11])
    for (const topic of ['many/1', 'many/2', 'many/3']) await client.publish(topic, topic)
    await client.publish('many/1', 'marker')
    expect(await client.payloadsBefore('marker')).toEqual(['many/1'])
  })
})
