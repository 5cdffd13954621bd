import { connect as connectTcp } from 'node:net'
import { generate, type Packet, parser } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { testedBroker } from './broker.js'

// Names that every object of JavaScript has.
const names = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__']
const lasting = { cleanStart: false, properties: { sessionExpiryInterval: 60 } } as const

const broker = testedBroker()

describe.each(names)('the name %s', name => {
  it('is a client identifier, with a session and a will', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('gone/#')
    const first = await broker.connect({ ...lasting, clientId: name, will: { topic: `gone/${name}`, payload: name } })
    await first.subscribe(['names/session', 1])
    first.destroy()
    expect(await watcher.message()).toMatchObject({ topic: `gone/${name}`, payload: name })
    await watcher.publish('names/session', 'x', { qos: 1 })
    const second = await broker.open()
    expect(await second.connect({ ...lasting, clientId: name })).toMatchObject({ code: 0, sessionPresent: true })
    expect(await second.message()).toMatchObject({ payload: 'x' })
    await second.disconnect()
    const third = await broker.open()
    expect(await third.connect({ clientId: name })).toMatchObject({ code: 0, sessionPresent: false })
  })

  it('is a client identifier of MQTT 3.1.1', async () => {
    const socket = connectTcp({ port: broker.port(), host: '127.0.0.1' })
    const packets: Packet[] = []
    const decoder = parser({ protocolVersion: 4 })
    decoder.on('packet', each => {
      packets.push(each)
      if (each.cmd === 'suback') socket.end(generate({ cmd: 'disconnect' }))
    })
    socket.on('data', chunk => decoder.parse(chunk))
    socket.write(generate({ cmd: 'connect', clientId: name, protocolVersion: 4, clean: false, keepalive: 0 }))
    socket.write(generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: name, qos: 2 }] }))
    await new Promise(resolve => socket.once('close', resolve))
    expect(packets.map(({ cmd }) => cmd)).toEqual(['connack', 'suback'])
  })

  it('is a topic, a level, a filter, and the topic of a will and of a retained message', async () => {
    const [subscriber, publisher] = [await broker.connect(), await broker.connect()]
    const topics = [name, `a/${name}`, `${name}/a`, `${name}/${name}`]
    await subscriber.subscribe([name, `a/${name}`, `${name}/+`])
    for (const topic of topics) {
      await publisher.publish(topic, name, { qos: 1, retain: true })
      expect(await subscriber.message()).toMatchObject({ topic, payload: name })
    }
    const dying = await broker.connect({ will: { topic: name, payload: 'will' } })
    dying.destroy()
    expect(await subscriber.message()).toMatchObject({ topic: name, payload: 'will' })
    const late = await broker.connect()
    await late.subscribe(`${name}/#`)
    const retained = [await late.message(), await late.message(), await late.message()]
    expect(new Set(retained.map(({ topic }) => topic))).toEqual(new Set([name, `${name}/a`, `${name}/${name}`]))
    expect(await subscriber.unsubscribe(name, `a/${name}`, `${name}/+`, `x/${name}`)).toEqual([0, 0, 0, 0x11])
    for (const topic of topics) await publisher.publish(topic, '', { retain: true })
  })

  it('is a user property, of a message, a will and every other packet', async () => {
    const userProperties = [
      [name, name],
      ['a', name],
      [name, ''],
    ] as const
    const given = { userProperties, contentType: name, responseTopic: name, correlationData: Buffer.from(name) }
    const will = { topic: 'names/properties', properties: given }
    const [subscriber, publisher] = [
      await broker.connect(),
      await broker.connect({ properties: { userProperties }, will }),
    ]
    expect(await subscriber.subscribe(['names/properties', 1], { userProperties })).toEqual([1])
    await publisher.publish('names/properties', '', { qos: 1, properties: given })
    expect((await subscriber.message()).properties).toEqual(given)
    publisher.destroy()
    expect((await subscriber.message()).properties).toEqual(given)
  })

  it('is a group of a shared subscription', async () => {
    const members = [await broker.connect(), await broker.connect()]
    const filter = `$share/${name}/${name}/shared`
    for (const member of members) expect(await member.subscribe([filter, 1])).toEqual([1])
    const publisher = await broker.connect()
    for (let n = 0; n < 4; n++) expect(await publisher.publish(`${name}/shared`, String(n), { qos: 1 })).toBe(0)
    const payloads: string[] = []
    for (const member of members) {
      expect(await member.unsubscribe(filter)).toEqual([0])
      await member.subscribe('names-marker')
      await publisher.publish('names-marker', 'marker')
      payloads.push(...(await member.payloadsBefore('marker')))
      await member.unsubscribe('names-marker')
    }
    expect(payloads.sort()).toEqual(['0', '1', '2', '3'])
  })

  it('is a topic alias’s topic, and a user name', async () => {
    const [subscriber, publisher] = [await broker.connect({ userName: name }), await broker.connect()]
    await subscriber.subscribe(`${name}/alias`)
    await publisher.publish(`${name}/alias`, '1', { properties: { topicAlias: 1 } })
    await publisher.publish('', '2', { properties: { topicAlias: 1 } })
    expect([(await subscriber.message()).topic, (await subscriber.message()).payload]).toEqual([`${name}/alias`, '2'])
  })
})
