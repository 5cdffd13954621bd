import { describe, expect, it } from 'vitest'
import { testedBroker } from './broker.js'
import { type AcknowledgementType, acknowledgement, pingreq, publishPacket } from './packets.js'

// On disk, as sessions of the other files are in memory.
const broker = testedBroker({ data: 'data' })
const lasting = { cleanStart: false, properties: { sessionExpiryInterval: 60 } } as const

/** A subscriber with a session and a publisher. */
async function pair(filter: string, qos: number, properties = {}) {
  const subscriber = await broker.connect({ ...lasting, properties: { ...lasting.properties, ...properties } })
  await subscriber.subscribe([filter, qos])
  return { subscriber, publisher: await broker.connect() }
}

describe('reason codes', () => {
  it.each([
    ['[MQTT-3.4.2-1] PUBACK', 1],
    ['[MQTT-3.5.2-1] PUBREC', 2],
  ])('%s says that there is a subscriber, and may say that there is none', async (_, qos) => {
    const { publisher } = await pair(`codes/${qos}`, qos)
    expect(await publisher.publish(`codes/${qos}`, '', { qos })).toBe(0)
    expect(await publisher.publish(`codes/none/${qos}`, '', { qos })).toBeOneOf([0, 0x10])
  })

  it('[MQTT-3.6.2-1] a PUBREL for an unknown message says so', async () => {
    const client = await broker.connect()
    client.send(acknowledgement('pubrec', 77), pingreq)
    // No answer is allowed, too; every code of the server is checked.
    const answer = await client.next()
    if (answer?.type === 'pubrel') expect(answer).toMatchObject({ id: 77, code: expect.toBeOneOf([0, 0x92]) })
    else expect(answer).toEqual({ type: 'pingresp' })
  })

  it('[MQTT-3.7.2-1] a PUBCOMP for an unknown message says so', async () => {
    const client = await broker.connect()
    client.send(acknowledgement('pubrel', 78))
    expect(await client.next()).toMatchObject({ type: 'pubcomp', id: 78 })
  })

  it.each<[AcknowledgementType, number]>([
    ['puback', 0x10],
    ['puback', 0x80],
    ['puback', 0x99],
    ['pubrec', 0x97],
    ['pubrel', 0x92],
    ['pubcomp', 0x92],
  ])('a %s with 0x%x, a reason and user properties for an unknown message disturbs nothing', async (type, code) => {
    const client = await broker.connect()
    const properties = {
      reasonString: 'why',
      userProperties: [
        ['a', 'b'],
        ['a', 'c'],
      ],
    } as const
    client.send(acknowledgement(type, 79, code, properties), pingreq)
    await client.take('pingresp')
  })
})

describe('QoS 0 and 1', () => {
  it('[MQTT-4.3.1-1] QoS 0 comes with neither DUP nor an identifier', async () => {
    const { subscriber, publisher } = await pair('flow/0', 2)
    await publisher.publish('flow/0', 'x')
    expect(await subscriber.message()).toMatchObject({ qos: 0, dup: false, id: 0 })
  })

  it('[MQTT-4.3.2-1] [MQTT-4.3.2-2] QoS 1 comes with a new identifier, and without DUP', async () => {
    const { subscriber, publisher } = await pair('flow/1', 1)
    for (let n = 0; n < 3; n++) await publisher.publish('flow/1', '', { qos: 1 })
    const all = [await subscriber.take('publish'), await subscriber.take('publish'), await subscriber.take('publish')]
    expect(all.map(({ dup }) => dup)).toEqual([false, false, false])
    expect(new Set(all.map(({ id }) => id)).size).toBe(3)
  })

  it('[MQTT-4.3.2-3] [MQTT-4.4.0-1] what has no PUBACK is sent again on the next connection with its identifier, and only then', async () => {
    const { subscriber, publisher } = await pair('again/1', 1)
    for (const payload of ['1', '2', '3']) await publisher.publish('again/1', payload, { qos: 1 })
    const all = [await subscriber.take('publish'), await subscriber.take('publish'), await subscriber.take('publish')]
    subscriber.acknowledge('puback', all[1]?.id ?? 0)
    subscriber.send(pingreq)
    expect(await subscriber.next()).toEqual({ type: 'pingresp' })
    subscriber.destroy()
    const next = await broker.connect({ ...lasting, clientId: subscriber.id })
    expect(await next.message()).toMatchObject({ payload: '1', id: all[0]?.id, dup: true })
    expect(await next.message()).toMatchObject({ payload: '3', id: all[2]?.id, dup: true })
  })

  it('[MQTT-4.3.2-4] [MQTT-4.3.2-5] each PUBLISH of QoS 1 is a new message after its PUBACK, whatever DUP says', async () => {
    const { subscriber, publisher } = await pair('new/1', 1)
    for (let n = 0; n < 2; n++) {
      publisher.send(publishPacket('new/1', String(n), { qos: 1, id: 9, dup: n === 1 }))
      expect(await publisher.next()).toMatchObject({ type: 'puback', id: 9 })
      expect(await subscriber.message()).toMatchObject({ payload: String(n) })
    }
  })

  it('[MQTT-4.4.0-2] a PUBACK with an error ends the exchange', async () => {
    const { subscriber, publisher } = await pair('refused/1', 1, { receiveMaximum: 1 })
    await publisher.publish('refused/1', 'refused', { qos: 1 })
    await publisher.publish('refused/1', 'next', { qos: 1 })
    const { id } = await subscriber.take('publish')
    subscriber.acknowledge('puback', id, 0x80)
    expect(await subscriber.message()).toMatchObject({ payload: 'next' })
    await subscriber.disconnect()
    const later = await broker.connect({ ...lasting, clientId: subscriber.id })
    await publisher.publish('refused/1', 'marker', { qos: 1 })
    expect(await later.payloadsBefore('marker')).toEqual([])
  })
})

describe('QoS 2', () => {
  it('[MQTT-4.3.3-1] [MQTT-4.3.3-2] comes with a new identifier, and without DUP', async () => {
    const { subscriber, publisher } = await pair('flow/2', 2)
    for (let n = 0; n < 3; n++) await publisher.publish('flow/2', '', { qos: 2 })
    const all = [await subscriber.take('publish'), await subscriber.take('publish'), await subscriber.take('publish')]
    expect(all.map(({ dup, qos }) => [dup, qos])).toEqual([
      [false, 2],
      [false, 2],
      [false, 2],
    ])
    expect(new Set(all.map(({ id }) => id)).size).toBe(3)
  })

  it('[MQTT-4.3.3-3] without PUBREC a message is sent again with DUP', async () => {
    const { subscriber, publisher } = await pair('again/2', 2)
    await publisher.publish('again/2', 'x', { qos: 2 })
    const { id } = await subscriber.take('publish')
    subscriber.destroy()
    const next = await broker.connect({ ...lasting, clientId: subscriber.id })
    expect(await next.message()).toMatchObject({ id, dup: true, qos: 2, payload: 'x' })
  })

  it('[MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6] PUBREC gets PUBREL, which alone is sent again without PUBCOMP', async () => {
    const { subscriber, publisher } = await pair('released/2', 2)
    await publisher.publish('released/2', 'x', { qos: 2 })
    const { id } = await subscriber.take('publish')
    subscriber.send(acknowledgement('pubrec', id))
    expect(await subscriber.take('pubrel')).toMatchObject({ id, code: 0 })
    subscriber.destroy()
    const next = await broker.connect({ ...lasting, clientId: subscriber.id })
    expect(await next.next()).toMatchObject({ type: 'pubrel', id })
    next.acknowledge('pubcomp', id)
    await publisher.publish('released/2', 'marker', { qos: 1 })
    expect(await next.payloadsBefore('marker')).toEqual([])
    await next.disconnect()
    const last = await broker.connect({ ...lasting, clientId: subscriber.id })
    last.send(pingreq)
    expect(await last.next()).toEqual({ type: 'pingresp' })
  })

  it('[MQTT-4.3.3-4] [MQTT-4.4.0-2] a PUBREC with an error ends the exchange without PUBREL', async () => {
    const { subscriber, publisher } = await pair('refused/2', 2, { receiveMaximum: 1 })
    await publisher.publish('refused/2', 'refused', { qos: 2 })
    await publisher.publish('refused/2', 'marker', { qos: 1 })
    const { id } = await subscriber.take('publish')
    subscriber.acknowledge('pubrec', id, 0x80)
    expect(await subscriber.next()).toMatchObject({ type: 'publish', payload: 'marker' })
  })

  it('[MQTT-4.3.3-7] [MQTT-4.3.3-13] a message that was sent does not expire, and its exchange is completed', {
    timeout: 20_000,
  }, async () => {
    const { subscriber, publisher } = await pair('sent/2', 2)
    await publisher.publish('sent/2', 'x', { qos: 2, properties: { messageExpiryInterval: 1 } })
    const { id } = await subscriber.take('publish')
    subscriber.destroy()
    // A publication that expires between PUBLISH and PUBREL, too.
    publisher.send(publishPacket('sent/2/own', '', { qos: 2, id: 70, properties: { messageExpiryInterval: 1 } }))
    await publisher.take('pubrec')
    await publisher.subscribe('sent-clock')
    const will = { topic: 'sent-clock', properties: { willDelayInterval: 2 } }
    const timer = await broker.connect({ ...lasting, will })
    timer.destroy()
    await publisher.message()
    publisher.send(acknowledgement('pubrel', 70))
    expect(await publisher.take('pubcomp')).toMatchObject({ id: 70, code: 0 })
    const next = await broker.connect({ ...lasting, clientId: subscriber.id })
    expect(await next.message()).toMatchObject({ id, dup: true, payload: 'x' })
  })

  it('[MQTT-4.3.3-8] [MQTT-4.3.3-10] until PUBREL the same identifier is the same message', async () => {
    const { subscriber, publisher } = await pair('same/2', 2)
    for (let n = 0; n < 3; n++) {
      publisher.send(publishPacket('same/2', 'once', { qos: 2, id: 12, dup: n > 0 }))
      expect(await publisher.next()).toMatchObject({ type: 'pubrec', id: 12 })
    }
    publisher.send(acknowledgement('pubrel', 12))
    await publisher.take('pubcomp')
    await publisher.publish('same/2', 'marker', { qos: 2 })
    expect(await subscriber.payloadsBefore('marker')).toEqual(['once'])
  })

  it('[MQTT-4.3.3-10] so it is on the session’s next connection', async () => {
    const { subscriber } = await pair('same-later/2', 2)
    const first = await broker.connect(lasting)
    first.send(publishPacket('same-later/2', 'once', { qos: 2, id: 12 }))
    await first.take('pubrec')
    first.destroy()
    const second = await broker.connect({ ...lasting, clientId: first.id })
    second.send(publishPacket('same-later/2', 'once', { qos: 2, id: 12, dup: true }))
    expect(await second.take('pubrec')).toMatchObject({ id: 12 })
    second.send(acknowledgement('pubrel', 12))
    expect(await second.take('pubcomp')).toMatchObject({ id: 12, code: 0 })
    await second.publish('same-later/2', 'marker', { qos: 2 })
    expect(await subscriber.payloadsBefore('marker')).toEqual(['once'])
  })

  it('[MQTT-4.3.3-11] [MQTT-4.3.3-12] PUBREL gets PUBCOMP, and after it the identifier is a new message’s', async () => {
    const { subscriber, publisher } = await pair('new/2', 2)
    for (let n = 0; n < 2; n++) {
      publisher.send(publishPacket('new/2', String(n), { qos: 2, id: 13 }))
      await publisher.take('pubrec')
      publisher.send(acknowledgement('pubrel', 13))
      expect(await publisher.take('pubcomp')).toMatchObject({ id: 13, code: 0 })
      expect(await subscriber.message()).toMatchObject({ payload: String(n) })
    }
  })
})

describe('order', () => {
  it.each([0, 1, 2])(
    '[MQTT-4.6.0-5] [MQTT-4.6.0-6] messages of QoS %i come in the order in which they were published',
    async qos => {
      const { subscriber, publisher } = await pair(`order/${qos}`, 2)
      const expected = Array.from({ length: 18 }, (_, n) => String(n))
      publisher.send(...expected.map((payload, n) => publishPacket(`order/${qos}`, payload, { qos, id: n + 1 })))
      if (qos === 2) {
        for (let n = 0; n < 18; n++) expect(await publisher.next()).toMatchObject({ type: 'pubrec', id: n + 1 })
        publisher.send(...expected.map((_, n) => acknowledgement('pubrel', n + 1)))
      }
      const payloads: string[] = []
      while (payloads.length < 18) payloads.push((await subscriber.message()).payload)
      expect(payloads).toEqual(expected)
    },
  )

  it('[MQTT-4.6.0-5] so they do from a session’s queue', async () => {
    const { subscriber, publisher } = await pair('order/queue', 2)
    await subscriber.disconnect()
    const expected = Array.from({ length: 40 }, (_, n) => String(n))
    for (const payload of expected) await publisher.publish('order/queue', payload, { qos: 1 })
    const next = await broker.connect({ ...lasting, clientId: subscriber.id })
    const payloads: string[] = []
    while (payloads.length < 40) payloads.push((await next.message()).payload)
    expect(payloads).toEqual(expected)
  })
})
