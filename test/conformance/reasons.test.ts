import { afterAll, describe, expect, it } from 'vitest'
import { Credentials } from '../broker/embedded/access-rig.js'
import { startTestGateway } from '../helpers/gateway.js'
import { expectRefusal, otherBroker, testedBroker } from './broker.js'
import { Client } from './client.js'
import { acknowledgement, connectPacket, type Properties, packet, pingreq } from './packets.js'

// What this broker refuses by its own rules; another one has none of them.
describe.skipIf(otherBroker > 0)('refusals', () => {
  const credentials = new Credentials()
  const broker = testedBroker({
    access: {
      ...credentials.access,
      rules: [
        { to: 'anonymous', publish: ['open/#'], subscribe: ['open/#'] },
        { to: 'authenticated', publish: ['open/#'], subscribe: ['open/#'] },
      ],
    },
  })
  afterAll(() => credentials.remove())

  /** Room for every acknowledgement and for CONNACK, but not for the sentences of this broker. */
  const small: Properties = { maximumPacketSize: 30 }

  it('[MQTT-3.1.4-2] a wrong password is refused with 0x86, and the end', async () => {
    const client = await broker.open()
    const { code } = await client.connect({ userName: 'alice', password: 'wrong' })
    expect(code).toBe(0x86)
    expect(await client.next()).toBeUndefined()
  })

  it('[MQTT-3.1.4-2] a right one is accepted', async () => {
    const client = await broker.open()
    expect(await client.connect({ userName: 'alice', password: 'right' })).toMatchObject({ code: 0 })
  })

  it('[MQTT-3.1.3-8] the client identifier of another user’s session is refused with 0x85', async () => {
    const alice = await broker.open()
    const session = { cleanStart: false, properties: { sessionExpiryInterval: 60 }, password: 'right' } as const
    expect(await alice.connect({ ...session, userName: 'alice' })).toMatchObject({ code: 0 })
    const bob = await broker.open()
    expect(await bob.connect({ ...session, clientId: alice.id, userName: 'bob' })).toMatchObject({ code: 0x85 })
    expect(await bob.next()).toBeUndefined()
    alice.send(pingreq)
    await alice.take('pingresp')
  })

  it('[MQTT-3.2.2-7] a will to a topic that the client may not publish is refused with 0x87', async () => {
    const client = await broker.open()
    expect(await client.connect({ will: { topic: 'closed' } })).toMatchObject({ code: 0x87 })
    expect(await client.next()).toBeUndefined()
  })

  it.each([
    ['[MQTT-3.4.2-1] PUBACK', 1],
    ['[MQTT-3.5.2-1] PUBREC', 2],
  ] as const)('%s says that a topic is closed, and the client stays', async (_, qos) => {
    const client = await broker.connect()
    expect(await client.publish('closed', '', { qos })).toBe(0x87)
    expect(await client.publish('open/x', '', { qos })).toBeOneOf([0, 0x10])
  })

  it('[MQTT-4.3.3-9] after a PUBREC with an error the identifier is free', async () => {
    const [client, watcher] = [await broker.connect(), await broker.connect()]
    await watcher.subscribe(['open/after', 1])
    expect(await client.publish('closed', '', { qos: 2, id: 7 })).toBe(0x87)
    expect(await client.publish('open/after', 'new', { qos: 2, id: 7 })).toBe(0)
    expect(await watcher.message()).toMatchObject({ payload: 'new' })
  })

  it.each([1, 2])('a message of QoS %i without a subscriber is acknowledged with 0x10', async qos => {
    const client = await broker.connect()
    expect(await client.publish(`open/nobody/${qos}`, '', { qos })).toBe(0x10)
    await client.subscribe(`open/nobody/${qos}`)
    expect(await client.publish(`open/nobody/${qos}`, '', { qos })).toBe(0)
  })

  it('[MQTT-3.9.3-2] SUBACK says which filters are closed', async () => {
    const client = await broker.connect()
    expect(await client.subscribe([['open/1', 1], 'closed/#', '#', ['open/2', 2]])).toEqual([1, 0x87, 0x87, 2])
  })

  it('[MQTT-3.1.2-29] without a request for problem information there is no reason in acknowledgements', async () => {
    const client = await broker.connect({ properties: { requestProblemInformation: 0 } })
    for (const qos of [1, 2]) expect(await client.publish('closed', '', { qos })).toBe(0x87)
    expect(await client.subscribe('closed')).toEqual([0x87])
    client.send(acknowledgement('pubrel', 99))
    // The client checks that there is no reason string.
    await client.take('pubcomp')
  })

  it.each([
    ['[MQTT-3.4.2-2] [MQTT-3.4.2-3] PUBACK', (client: Client) => client.publish('closed', '', { qos: 1 })],
    ['[MQTT-3.5.2-2] [MQTT-3.5.2-3] PUBREC', (client: Client) => client.publish('closed', '', { qos: 2 })],
    ['[MQTT-3.9.2-1] [MQTT-3.9.2-2] SUBACK', async (client: Client) => (await client.subscribe('closed'))[0]],
  ])('%s has a reason only where it is not too large', async (_, ask) => {
    for (const properties of [{}, small]) {
      const client = await broker.connect({ properties })
      expect(await ask(client)).toBe(0x87)
    }
  })

  it('[MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.11.2-1] [MQTT-3.11.2-2] so have PUBREL, PUBCOMP and UNSUBACK', async () => {
    const client = await broker.connect({ properties: small })
    client.send(acknowledgement('pubrec', 9), acknowledgement('pubrel', 10))
    expect(await client.take('pubcomp')).toMatchObject({ id: 10 })
    expect(await client.unsubscribe('x')).toEqual([0x11])
  })

  it('[MQTT-3.14.2-3] [MQTT-3.14.2-4] so has DISCONNECT', async () => {
    const client = await broker.connect({ properties: small })
    await expectRefusal(client.send(packet(0)), 0x81, 0x82)
  })

  it('[MQTT-3.2.2-19] [MQTT-3.2.2-20] so has CONNACK', async () => {
    const client = await broker.open()
    const options = { userName: 'alice', password: 'wrong', properties: small }
    expect(await client.connect(options)).toMatchObject({ code: 0x86 })
  })

  it('[MQTT-3.15.2-2] [MQTT-3.15.2-3] a method of enhanced authentication gets no AUTH, but 0x8C', async () => {
    const client = await broker.open()
    client.send(connectPacket({ clientId: client.id, properties: { authenticationMethod: 'GS2-KRB5' } }))
    expect(await client.next()).toMatchObject({ type: 'connack', code: 0x8c })
    expect(await client.next()).toBeUndefined()
  })
})

it.skipIf(otherBroker > 0)('[MQTT-3.14.2-1] a server that shuts down says so, and ends the connection', async () => {
  const gateway = await startTestGateway({ https: { port: 'off' } })
  const client = await Client.open(gateway.mqttPort)
  await client.connect()
  const closed = gateway.close()
  expect(await client.refused()).toBe(0x8b)
  client.destroy()
  await closed
})
