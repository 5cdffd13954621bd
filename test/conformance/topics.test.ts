import { describe, expect, it } from 'vitest'
import { expectRefusal, testedBroker } from './broker.js'
import type { Client } from './client.js'
import {
  acknowledgement,
  disconnectPacket,
  publishPacket,
  retainNever,
  subscribePacket,
  unsubscribePacket,
} from './packets.js'

const broker = testedBroker()
const lasting = { cleanStart: false, properties: { sessionExpiryInterval: 60 } } as const

/** A filter is refused in SUBACK, or the connection ends. */
async function expectRefusedFilter(filter: string | Buffer): Promise<void> {
  const client = await broker.connect()
  client.send(subscribePacket(1, [[filter, 0]]))
  const answer = await client.next()
  if (answer?.type === 'suback') expect(answer.codes).toEqual([0x8f])
  else if (answer?.type === 'disconnect') expect(answer.code).toBeOneOf([0x81, 0x82, 0x8f])
  else expect(answer).toBeUndefined()
}

describe('wildcards', () => {
  it.each(['a/#/b', 'a#', '#a', '#/a', '/#a', '##', 'a/##'])(
    '[MQTT-4.7.1-1] the filter %s is refused',
    async filter => {
      await expectRefusedFilter(filter)
    },
  )

  it.each(['a+', '+a', 'a/+b', 'a/b+/c', '++'])('[MQTT-4.7.1-2] the filter %s is refused', async filter => {
    await expectRefusedFilter(filter)
  })

  it.each([
    ['sport/#', ['sport', 'sport/', 'sport/a', 'sport/a/b'], ['sports', 'Sport/a', '/sport/a']],
    ['wild/+/x', ['wild/a/x', 'wild//x'], ['wild/x', 'wild/a/b/x', 'wild/a/x/y', 'wild/a/X']],
    ['+/fin', ['a/fin', '/fin'], ['fin', 'a/b/fin']],
    ['/+', ['/a', '/'], ['a', '/a/b']],
    ['single/+', ['single/a', 'single/'], ['single', 'single/a/b']],
  ])('[MQTT-4.7.1-1] [MQTT-4.7.1-2] %s matches as the specification says', async (filter, matching, others) => {
    const client = await broker.connect()
    await client.subscribe([filter, 'wildcard-marker'])
    for (const topic of [...matching, ...others]) await client.publish(topic, topic)
    await client.publish('wildcard-marker', 'marker')
    expect(await client.payloadsBefore('marker')).toEqual(matching)
  })

  it('[MQTT-4.7.2-1] a filter that begins with a wildcard matches no topic that begins with $', async () => {
    const client = await broker.connect()
    await client.subscribe([
      ['#', retainNever],
      ['+/dollar/x', retainNever],
    ])
    await client.publish('$dollar/dollar/x', 'no')
    await client.publish('a/dollar/x', 'yes')
    await client.publish('marker', 'marker')
    const payloads = await client.payloadsBefore('marker')
    expect([payloads.includes('yes'), payloads.includes('no')]).toEqual([true, false])
  })
})

describe('topics and filters', () => {
  it('[MQTT-4.7.3-1] an empty filter is refused', async () => {
    await expectRefusedFilter('')
    const client = await broker.connect()
    client.send(unsubscribePacket(1, ['']))
    const answer = await client.next()
    if (answer?.type === 'unsuback') expect(answer.codes).toEqual([expect.toBeOneOf([0x8f, 0x11])])
    else expect(answer?.type).toBeOneOf(['disconnect', undefined])
  })

  it('[MQTT-4.7.3-1] a topic of one character, and one of one slash, are allowed', async () => {
    const client = await broker.connect()
    await client.subscribe(['/', 'x'])
    for (const topic of ['/', 'x']) {
      await client.publish(topic, topic)
      expect(await client.message()).toMatchObject({ topic })
    }
  })

  it('[MQTT-4.7.3-2] U+0000 is refused', async () => {
    await expectRefusedFilter(Buffer.from('a\0b'))
    const client = await broker.connect()
    await expectRefusal(client.send(publishPacket(Buffer.from('a\0b'), '')), 0x81, 0x82, 0x90)
  })

  it('[MQTT-4.7.3-3] a topic of 65,535 bytes is delivered, or refused: none is longer', async () => {
    const [client, bystander] = [await broker.connect(), await broker.connect()]
    await bystander.subscribe('long-topic-bystander')
    client.send(publishPacket('x'.repeat(65_535), '', { qos: 1 }))
    const answer = await client.next()
    if (answer?.type === 'puback') expect(answer.code).toBeOneOf([0, 0x10, 0x90])
    else expect(answer).toMatchObject({ type: 'disconnect', code: expect.toBeOneOf([0x90, 0x97, 0x95]) })
    await bystander.publish('long-topic-bystander', 'x')
    await bystander.message()
  })

  it('[MQTT-4.7.3-4] topics are compared character by character', async () => {
    const client = await broker.connect()
    const filters = ['Exact/é', 'exact/é', 'exact/e\u0301', 'exact/ ', 'exact//', 'exact/%41']
    await client.subscribe(filters)
    for (const topic of [...filters, 'exact/A', 'exact/É', 'exact', ' exact/é']) await client.publish(topic, topic)
    await client.publish('exact/é', 'marker')
    expect(await client.payloadsBefore('marker')).toEqual(filters)
  })
})

describe('shared subscriptions', () => {
  it.each(['$share/', '$share//t', '$share/g', '$share/g/'])(
    '[MQTT-4.8.2-1] [MQTT-4.8.2-2] the filter %s is refused',
    async filter => {
      await expectRefusedFilter(filter)
    },
  )

  it.each(['$share/g+/t', '$share/#/t', '$share/+/t', '$share/g#/t'])(
    '[MQTT-4.8.2-2] the filter %s is refused',
    async filter => {
      await expectRefusedFilter(filter)
    },
  )

  async function group(filter: string, count: number, qos = 1): Promise<Client[]> {
    const clients = []
    for (let n = 0; n < count; n++) {
      const client = await broker.connect(lasting)
      await client.subscribe([filter, qos])
      clients.push(client)
    }
    return clients
  }

  it('[MQTT-4.8.2-1] each message goes to one client of each group, and to everybody else', async () => {
    const members = await group('$share/one/shared/#', 3)
    const [others, plain, publisher] = [
      await group('$share/two/shared/#', 2),
      await broker.connect(),
      await broker.connect(),
    ]
    await plain.subscribe(['shared/#', 1])
    const expected = Array.from({ length: 12 }, (_, n) => String(n))
    for (const payload of expected) await publisher.publish('shared/x', payload, { qos: 1 })
    await publisher.publish('shared/x', 'end', { qos: 1 })
    expect(await plain.payloadsBefore('end')).toEqual(expected)
    for (const clients of [members, others]) {
      const received: string[][] = []
      for (const client of clients) {
        await client.subscribe('shared-marker')
        await publisher.publish('shared-marker', 'marker')
        received.push(await client.payloadsBefore('marker'))
        await client.unsubscribe('shared-marker')
      }
      expect(
        received
          .flat()
          .filter(payload => payload !== 'end')
          .sort(),
      ).toEqual([...expected].sort())
      // Nobody is left out where messages go round.
      expect(received.every(payloads => payloads.length > 0)).toBe(true)
    }
  })

  it('[MQTT-4.8.2-3] each client has its own QoS', async () => {
    const [zero, two] = [await broker.connect(), await broker.connect()]
    await zero.subscribe(['$share/qos/shared-qos', 0])
    await two.subscribe(['$share/qos/shared-qos', 2])
    const publisher = await broker.connect()
    for (let n = 0; n < 4; n++) await publisher.publish('shared-qos', String(n), { qos: 2 })
    const seen = { zero: [] as number[], two: [] as number[] }
    for (const [name, client] of [
      ['zero', zero],
      ['two', two],
    ] as const) {
      await client.subscribe('shared-qos-marker')
      await publisher.publish('shared-qos-marker', 'marker')
      for (let each = await client.message(); each.payload !== 'marker'; each = await client.message())
        seen[name].push(each.qos)
      await client.unsubscribe('shared-qos-marker')
    }
    expect(new Set(seen.zero)).toEqual(new Set([0]))
    expect(new Set(seen.two)).toEqual(new Set([2]))
    expect(seen.zero.length + seen.two.length).toBe(4)
  })

  it('[MQTT-4.8.2-4] [MQTT-4.8.2-5] a message of QoS 2 that has been sent is completed with the same client', async () => {
    const [first, publisher] = [(await group('$share/same/shared-2', 1, 2))[0] as Client, await broker.connect()]
    await publisher.publish('shared-2', 'x', { qos: 2 })
    const { id } = await first.take('publish')
    const [second] = (await group('$share/same/shared-2', 1, 2)) as [Client]
    first.destroy()
    await second.subscribe('shared-2-marker')
    await publisher.publish('shared-2-marker', 'marker')
    expect(await second.payloadsBefore('marker')).toEqual([])
    const again = await broker.connect({ ...lasting, clientId: first.id })
    expect(await again.message()).toMatchObject({ payload: 'x', id, dup: true })
    // Nor does another client get it when the session ends.
    await publisher.publish('shared-2', 'y', { qos: 2 })
    await publisher.publish('shared-2', 'z', { qos: 2 })
    await again.take('publish')
    await again.disconnect(disconnectPacket(0, { sessionExpiryInterval: 0 }))
    const seen = await second.take('publish')
    second.send(acknowledgement('pubrec', seen.id))
    await publisher.publish('shared-2-marker', 'marker')
    expect(await second.payloadsBefore('marker')).toEqual([])
  })

  it.each([
    ['PUBACK', 1, 'puback'],
    ['PUBREC', 2, 'pubrec'],
  ] as const)('[MQTT-4.8.2-6] a %s with an error discards the message', async (_, qos, type) => {
    const topic = `shared-refused/${qos}`
    const [first, second] = (await group(`$share/refused/${topic}`, 2, qos)) as [Client, Client]
    const publisher = await broker.connect()
    for (let n = 0; n < 2; n++) await publisher.publish(topic, String(n), { qos })
    for (const client of [first, second]) {
      const { id } = await client.take('publish')
      client.acknowledge(type, id, 0x80)
    }
    for (const client of [first, second]) {
      await client.subscribe('shared-refused-marker')
      await publisher.publish('shared-refused-marker', 'marker')
      expect(await client.payloadsBefore('marker')).toEqual([])
      await client.unsubscribe('shared-refused-marker')
    }
  })

  it('a shared subscription ends with UNSUBSCRIBE, and gets no retained messages', async () => {
    const client = await broker.connect()
    await client.publish('shared-retained', 'x', { retain: true, qos: 1 })
    expect(await client.subscribe(['$share/r/shared-retained', 1])).toEqual([1])
    expect(await client.unsubscribe('shared-retained', '$share/other/shared-retained')).toEqual([0x11, 0x11])
    expect(await client.unsubscribe('$share/r/shared-retained')).toEqual([0])
    await client.publish('shared-retained', 'y')
    await client.subscribe('shared-retained-marker')
    await client.publish('shared-retained-marker', 'marker')
    expect(await client.payloadsBefore('marker')).toEqual([])
  })
})
