import { describe, expect, it } from 'vitest'
import { expectRefusal, testedBroker } from './broker.js'
import type { Client } from './client.js'
import {
  connectPacket,
  packet,
  pingreq,
  properties,
  publishPacket,
  retainAsPublished,
  retainIfNew,
  retainNever,
  text,
  two,
} from './packets.js'

const broker = testedBroker()
const lasting = { cleanStart: false, properties: { sessionExpiryInterval: 60 } } as const

async function pair(): Promise<[Client, Client]> {
  return [await broker.connect(), await broker.connect()]
}

/** What a new subscriber gets of `filter` at once. */
async function retainedAt(filter: string, options = 0) {
  const client = await broker.connect()
  await client.subscribe([[filter, options], 'retained-marker'])
  await client.publish('retained-marker', 'marker')
  const payloads = await client.payloadsBefore('marker')
  await client.disconnect()
  return payloads
}

describe('flags', () => {
  it('[MQTT-3.3.1-1] DUP is set when a message is sent again', async () => {
    const [first, publisher] = [await broker.connect(lasting), await broker.connect()]
    await first.subscribe(['again', 1])
    await publisher.publish('again', 'x', { qos: 1 })
    const { id, dup } = await first.take('publish')
    expect(dup).toBe(false)
    first.destroy()
    const second = await broker.connect({ ...lasting, clientId: first.id })
    expect(await second.message()).toMatchObject({ id, dup: true, payload: 'x' })
  })

  it('[MQTT-3.3.1-2] a PUBLISH of QoS 0 with DUP ends the connection', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(publishPacket('t', '', { dup: true })), 0x81, 0x82)
  })

  it('[MQTT-3.3.1-3] DUP of the publisher is not passed on', async () => {
    const [subscriber, publisher] = await pair()
    await subscriber.subscribe(['not-passed-on', 2])
    for (const qos of [1, 2]) {
      await publisher.publish('not-passed-on', '', { qos, dup: true })
      expect(await subscriber.message()).toMatchObject({ qos, dup: false })
    }
  })

  it('[MQTT-3.3.1-4] QoS 3 ends the connection', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(publishPacket('t', '', { qos: 3 })), 0x81)
  })
})

describe('retained messages', () => {
  it('[MQTT-3.3.1-5] the last one is kept', async () => {
    const client = await broker.connect()
    await client.publish('kept', '1', { retain: true, qos: 1 })
    await client.publish('kept', '2', { retain: true, qos: 1 })
    expect(await retainedAt('kept')).toEqual(['2'])
  })

  it('[MQTT-3.3.1-6] [MQTT-3.3.1-7] an empty one is delivered, removes the one before and is not kept', async () => {
    const client = await broker.connect()
    await client.publish('removed', '1', { retain: true, qos: 1 })
    await client.subscribe(['removed', retainNever])
    await client.publish('removed', '', { retain: true, qos: 1 })
    expect(await client.message()).toMatchObject({ topic: 'removed', payload: '', retain: false })
    expect(await retainedAt('removed')).toEqual([])
  })

  it('[MQTT-3.3.1-8] a message without the flag changes nothing', async () => {
    const client = await broker.connect()
    await client.publish('unchanged', '1', { retain: true, qos: 1 })
    await client.publish('unchanged', '2', { qos: 1 })
    await client.publish('unchanged', '', { qos: 1 })
    expect(await retainedAt('unchanged')).toEqual(['1'])
  })

  it('[MQTT-3.3.1-9] are sent to each SUBSCRIBE with handling 0, with the flag', async () => {
    const client = await broker.connect()
    await client.publish('handling/0', 'x', { retain: true, qos: 1 })
    for (let n = 0; n < 2; n++) {
      await client.subscribe('handling/0')
      expect(await client.message()).toMatchObject({ payload: 'x', retain: true })
    }
  })

  it('[MQTT-3.3.1-10] are sent for a new subscription only with handling 1', async () => {
    const client = await broker.connect()
    await client.publish('handling/1', 'x', { retain: true, qos: 1 })
    await client.subscribe(['handling/1', retainIfNew])
    expect(await client.message()).toMatchObject({ payload: 'x', retain: true })
    await client.subscribe([['handling/1', retainIfNew | 1], 'handling-marker'])
    await client.publish('handling-marker', 'marker')
    expect(await client.payloadsBefore('marker')).toEqual([])
  })

  it('[MQTT-3.3.1-11] are not sent with handling 2', async () => {
    const client = await broker.connect()
    await client.publish('handling/2', 'x', { retain: true, qos: 1 })
    expect(await retainedAt('handling/2', retainNever)).toEqual([])
  })

  it.each([
    ['[MQTT-3.3.1-12] the flag is not passed on', 0, false],
    ['[MQTT-3.3.1-13] the flag is passed on with “retain as published”', retainAsPublished, true],
  ])('%s', async (_, options, expected) => {
    const [subscriber, publisher] = await pair()
    const topic = `flag/${options}`
    await subscriber.subscribe([topic, options])
    await publisher.publish(topic, '1', { retain: true, qos: 1 })
    await publisher.publish(topic, '2', { qos: 1 })
    expect([(await subscriber.message()).retain, (await subscriber.message()).retain]).toEqual([expected, false])
  })
})

describe('topics', () => {
  it.each(['a/#', '#', 'a/+/b', '+', 'a+', 'a#'])(
    '[MQTT-3.3.2-2] [MQTT-4.7.0-1] the topic %s ends the connection',
    async topic => {
      const client = await broker.connect()
      await expectRefusal(client.send(publishPacket(topic, '', { qos: 1 })), 0x81, 0x82, 0x90)
    },
  )

  it('[MQTT-3.3.2-1] [MQTT-3.3.2-3] a message has the topic with which it was published', async () => {
    const [subscriber, publisher] = await pair()
    await subscriber.subscribe('same/+/#')
    for (const topic of ['same/a', 'same//', 'same/a/b/ä 𝄞', 'same/$x']) {
      await publisher.publish(topic)
      expect(await subscriber.message()).toMatchObject({ topic })
    }
  })
})

describe('properties', () => {
  const given = {
    payloadFormatIndicator: 1,
    contentType: 'application/json',
    responseTopic: 'answers/1',
    correlationData: Buffer.from([0, 255, 10]),
    userProperties: [
      ['b', '2'],
      ['a', '1'],
      ['b', ''],
      ['', 'x'],
    ],
  } as const

  it.each([0, 1, 2])(
    '[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] are passed on unchanged at QoS %i',
    async qos => {
      const [subscriber, publisher] = await pair()
      await subscriber.subscribe([`passed/${qos}`, qos])
      await publisher.publish(`passed/${qos}`, '{}', { qos, properties: given })
      expect((await subscriber.message()).properties).toEqual(given)
    },
  )

  it('[MQTT-3.3.2-4] payload format 0 is passed on or left out, as it means the same', async () => {
    const [subscriber, publisher] = await pair()
    await subscriber.subscribe('format')
    await publisher.publish('format', '', { properties: { payloadFormatIndicator: 0 } })
    expect((await subscriber.message()).properties.payloadFormatIndicator ?? 0).toBe(0)
  })

  it('[MQTT-3.3.2-17] are there in retained messages and those of a session', async () => {
    const [first, publisher] = [await broker.connect(lasting), await broker.connect()]
    await first.subscribe(['stored', 1])
    await first.disconnect()
    await publisher.publish('stored', '{}', { qos: 1, retain: true, properties: given })
    const second = await broker.connect({ ...lasting, clientId: first.id })
    expect((await second.message()).properties).toEqual(given)
    await publisher.subscribe('stored')
    expect((await publisher.message()).properties).toEqual(given)
  })

  it.each(['a/#', '+', 'a/+/b'])('[MQTT-3.3.2-14] the response topic %s ends the connection', async responseTopic => {
    const client = await broker.connect()
    await expectRefusal(client.send(publishPacket('t', '', { properties: { responseTopic } })), 0x81, 0x82, 0x90)
  })

  it('[MQTT-3.3.4-6] a subscription identifier of a client ends the connection', async () => {
    const client = await broker.connect()
    const wrong = publishPacket('t', '', { properties: { subscriptionIdentifier: 1 } })
    await expectRefusal(client.send(wrong), 0x81, 0x82)
  })
})

describe('message expiry', () => {
  it('[MQTT-3.3.2-6] [MQTT-3.3.2-5] the interval is counted down, and what has expired is not sent', {
    timeout: 20_000,
  }, async () => {
    const [first, publisher] = [await broker.connect(lasting), await broker.connect()]
    await first.subscribe(['expiry/#', 1])
    await first.disconnect()
    const publish = (topic: string, messageExpiryInterval: number, retain = false) =>
      publisher.publish(topic, topic, { qos: 1, retain, properties: { messageExpiryInterval } })
    await publish('expiry/short', 1)
    await publish('expiry/long', 60)
    await publish('expired-retained/short', 1, true)
    await publish('expired-retained/long', 60, true)
    // The delay of a will is a clock of the broker itself.
    await publisher.subscribe('expiry-clock')
    const clock = { topic: 'expiry-clock', properties: { willDelayInterval: 2 } }
    const timer = await broker.connect({ ...lasting, will: clock })
    timer.destroy()
    await publisher.message()

    const second = await broker.connect({ ...lasting, clientId: first.id })
    const { topic, properties } = await second.message()
    expect(topic).toBe('expiry/long')
    expect(properties.messageExpiryInterval).toBeGreaterThan(50)
    expect(properties.messageExpiryInterval).toBeLessThan(60)
    await second.subscribe('expired-retained/#')
    const retained = await second.message()
    expect(retained.topic).toBe('expired-retained/long')
    expect(retained.properties.messageExpiryInterval).toBeLessThan(60)
    await second.publish('expiry/marker', 'marker')
    expect(await second.payloadsBefore('marker')).toEqual([])
  })

  it('[MQTT-3.3.2-6] a message that does not wait has the whole interval', async () => {
    const [subscriber, publisher] = await pair()
    await subscriber.subscribe('interval')
    await publisher.publish('interval', '', { properties: { messageExpiryInterval: 100 } })
    expect((await subscriber.message()).properties.messageExpiryInterval).toBeOneOf([99, 100])
  })
})

describe('topic aliases', () => {
  const aliased = (topic: string, topicAlias: number, payload = '') =>
    publishPacket(topic, payload, { properties: { topicAlias } })

  it('[MQTT-3.3.2-12] the server takes all of them up to its maximum', async () => {
    const [subscriber, client] = [await broker.connect(), await broker.open()]
    const { topicAliasMaximum = 0 } = (await client.connect()).properties
    await subscriber.subscribe(['aliases/#', 1])
    for (let alias = 1; alias <= topicAliasMaximum; alias++) {
      client.send(aliased(`aliases/${alias}`, alias), aliased('', alias, 'again'))
      expect(await subscriber.message()).toMatchObject({ topic: `aliases/${alias}`, payload: '' })
      const { topic, payload, properties } = await subscriber.message()
      expect([topic, payload, properties]).toEqual([`aliases/${alias}`, 'again', {}])
    }
    // A new meaning, and the topic alone.
    if (topicAliasMaximum === 0) return
    client.send(aliased('aliases/new', 1), aliased('', 1), publishPacket('aliases/other', ''), aliased('', 1))
    for (const topic of ['aliases/new', 'aliases/new', 'aliases/other', 'aliases/new'])
      expect(await subscriber.message()).toMatchObject({ topic })
  })

  it('[MQTT-3.3.2-7] an alias means nothing on another connection', async () => {
    const first = await broker.connect(lasting)
    first.send(aliased('alias/one-connection', 1))
    await first.disconnect()
    const second = await broker.connect({ ...lasting, clientId: first.id })
    await expectRefusal(second.send(aliased('', 1)), 0x82, 0x94)
  })

  it('[MQTT-3.3.2-8] the alias 0 ends the connection', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(aliased('t', 0)), 0x94)
  })

  it('[MQTT-3.3.2-9] [MQTT-3.2.2-17] an alias above the server’s maximum ends the connection', async () => {
    const client = await broker.open()
    const { topicAliasMaximum = 0 } = (await client.connect()).properties
    await expectRefusal(client.send(aliased('t', topicAliasMaximum + 1)), 0x94)
  })

  it('an alias that has no topic ends the connection', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(aliased('', 1)), 0x82, 0x94)
  })

  it('neither a topic nor an alias ends the connection', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(publishPacket('', '')), 0x81, 0x82)
  })

  it.each([1, 2, 100])(
    '[MQTT-3.1.2-26] [MQTT-3.3.2-11] the server uses no alias above %i, the client’s maximum',
    async topicAliasMaximum => {
      const [subscriber, publisher] = [
        await broker.connect({ properties: { topicAliasMaximum } }),
        await broker.connect(),
      ]
      await subscriber.subscribe(['few-aliases/#', 1])
      for (let n = 0; n < 30; n++) {
        const topic = `few-aliases/${n % 5}`
        await publisher.publish(topic, String(n), { qos: n % 2 })
        // The client checks and resolves aliases.
        expect(await subscriber.message()).toMatchObject({ topic, payload: String(n) })
      }
    },
  )

  it('[MQTT-3.1.2-27] the server uses no alias for a client that has no maximum', async () => {
    for (const given of [{}, { topicAliasMaximum: 0 }]) {
      const client = await broker.connect({ properties: given })
      await client.subscribe('no-alias')
      for (let n = 0; n < 3; n++) {
        await client.publish('no-alias')
        expect((await client.message()).properties).toEqual({})
      }
    }
  })
})

describe('delivery', () => {
  it('[MQTT-3.3.4-1] each QoS has its answer', async () => {
    const client = await broker.connect()
    client.send(
      publishPacket('t', ''),
      publishPacket('t', '', { qos: 1, id: 5 }),
      publishPacket('t', '', { qos: 2, id: 6 }),
    )
    const answers = [await client.next(), await client.next()]
    expect(answers.map(each => each?.type).sort()).toEqual(['puback', 'pubrec'])
    client.send(pingreq)
    expect(await client.next()).toEqual({ type: 'pingresp' })
  })

  it('[MQTT-3.3.4-2] a message comes with the largest QoS of overlapping subscriptions', async () => {
    const [subscriber, publisher] = await pair()
    await subscriber.subscribe([
      ['overlap/#', 0],
      ['overlap/+', 2],
      ['overlap/x', 1],
    ])
    await publisher.publish('overlap/x', '', { qos: 2 })
    await publisher.publish('overlap/marker/x', 'marker')
    const seen: number[] = []
    for (let each = await subscriber.message(); each.payload !== 'marker'; each = await subscriber.message())
      seen.push(each.qos)
    expect(Math.max(...seen)).toBe(2)
  })

  it('[MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5] a message has the identifiers of the subscriptions that it matches', async () => {
    const [subscriber, publisher] = await pair()
    await subscriber.subscribe(['identified/#', 1], { subscriptionIdentifier: 268_435_455 })
    await subscriber.subscribe(['identified/+', 1], { subscriptionIdentifier: 1 })
    await subscriber.subscribe(['identified/x', 1])
    await subscriber.subscribe(['other/#', 1], { subscriptionIdentifier: 3 })
    await publisher.publish('identified/x', '', { qos: 1 })
    await publisher.publish('other/x', 'marker', { qos: 1 })
    const identifiers: number[] = []
    for (let each = await subscriber.message(); each.payload !== 'marker'; each = await subscriber.message())
      identifiers.push(...((each.properties.subscriptionIdentifier as number[] | undefined) ?? []))
    expect(identifiers.sort((a, b) => a - b)).toEqual([1, 268_435_455])
  })

  it('[MQTT-3.3.4-3] an identifier is there in retained messages, and replaced with its subscription', async () => {
    const [subscriber, publisher] = await pair()
    await publisher.publish('identified-retained', 'x', { retain: true, qos: 1 })
    for (const subscriptionIdentifier of [7, 8]) {
      await subscriber.subscribe('identified-retained', { subscriptionIdentifier })
      expect((await subscriber.message()).properties).toEqual({ subscriptionIdentifier: [subscriptionIdentifier] })
    }
    await subscriber.subscribe(['identified-retained', retainNever])
    await publisher.publish('identified-retained', 'y')
    expect((await subscriber.message()).properties).toEqual({})
  })

  it('[MQTT-3.3.4-7] messages beyond the server’s receive maximum end the connection', async () => {
    const client = await broker.open()
    const { receiveMaximum = 65_535 } = (await client.connect()).properties
    const all = Array.from({ length: receiveMaximum }, (_, n) => publishPacket('many', '', { qos: 2, id: n + 1 }))
    client.send(Buffer.concat(all))
    for (let n = 0; n < receiveMaximum; n++) expect(await client.next()).toMatchObject({ type: 'pubrec' })
    if (receiveMaximum === 65_535) return
    await expectRefusal(client.send(publishPacket('many', '', { qos: 2, id: receiveMaximum + 1 })), 0x93)
  })

  it.each([1, 3])(
    '[MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3] with %i unacknowledged messages the server sends only other packets',
    async receiveMaximum => {
      const subscriber = await broker.connect({ properties: { receiveMaximum } })
      const publisher = await broker.connect()
      const topic = `quota/${receiveMaximum}`
      await subscriber.subscribe([topic, 2])
      for (let n = 0; n < 12; n++) await publisher.publish(topic, String(n), { qos: 1 + (n % 2) })
      const held = []
      for (let n = 0; n < receiveMaximum; n++) held.push(await subscriber.take('publish'))
      await subscriber.publish('quota-other', '', { qos: 1 })
      subscriber.send(pingreq)
      expect(await subscriber.next()).toEqual({ type: 'pingresp' })
      await publisher.publish(topic, 'qos 0')
      for (const each of held) {
        // A PUBREC that refuses ends the exchange.
        if (each.qos === 1) subscriber.acknowledge('puback', each.id)
        else subscriber.acknowledge('pubrec', each.id, 0x83)
      }
      const rest: string[] = []
      while (rest.length < 13 - receiveMaximum) rest.push((await subscriber.message()).payload)
      expect(rest.filter(payload => payload !== 'qos 0')).toEqual(
        Array.from({ length: 12 - receiveMaximum }, (_, n) => String(n + receiveMaximum)),
      )
    },
  )

  it('[MQTT-3.1.2-24] [MQTT-3.1.2-25] a message that is too large is not sent, and takes nobody’s place', async () => {
    const subscriber = await broker.connect({ properties: { maximumPacketSize: 100, receiveMaximum: 1 } })
    const publisher = await broker.connect()
    await subscriber.subscribe(['sizes', 2])
    for (const qos of [0, 1, 2]) {
      await publisher.publish('sizes', 'x'.repeat(100), { qos })
      await publisher.publish('sizes', 'small', { qos, properties: { contentType: 'y'.repeat(100) } })
    }
    await publisher.publish('sizes', 'marker', { qos: 1 })
    expect(await subscriber.payloadsBefore('marker')).toEqual([])
    // A packet of exactly 100 bytes: two of the header, seven of the topic, two of the identifier, one of the properties.
    await publisher.publish('sizes', 'z'.repeat(88), { qos: 1 })
    expect((await subscriber.message()).payload).toHaveLength(88)
  })

  it('[MQTT-3.1.2-25] a message that is too large is not kept for the next connection', async () => {
    const small = { cleanStart: false, properties: { sessionExpiryInterval: 60, maximumPacketSize: 100 } }
    const [first, publisher] = [await broker.connect(small), await broker.connect()]
    await first.subscribe(['sizes/session', 1])
    await publisher.publish('sizes/session', 'x'.repeat(100), { qos: 1 })
    await publisher.publish('sizes/session', 'small', { qos: 1 })
    expect(await first.message()).toMatchObject({ payload: 'small' })
    await first.disconnect()
    const second = await broker.connect({ ...lasting, clientId: first.id })
    await publisher.publish('sizes/session', 'marker', { qos: 1 })
    expect(await second.payloadsBefore('marker')).toEqual([])
  })
})

it('a whole session in one segment is understood', async () => {
  const client = await broker.open()
  const id = `${client.id}-segment`
  client.send(
    connectPacket({ clientId: id }),
    packet(0x82, two(1), properties(), text('segment'), Buffer.from([1])),
    publishPacket('segment', 'x', { qos: 1 }),
    pingreq,
  )
  expect(await client.next()).toMatchObject({ type: 'connack' })
  expect(await client.message()).toMatchObject({ payload: 'x' })
  await client.take('pingresp')
})
