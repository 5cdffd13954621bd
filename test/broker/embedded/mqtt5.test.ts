import { generate, type IConnackPacket, type IConnectPacket, parser } from 'mqtt-packet'
import { afterEach, expect, it } from 'vitest'
import { anonymous } from '../../../src/base/identity.js'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker, type EmbeddedOptions } from '../../../src/broker/embedded/embedded.js'
import type { SubscribingClient } from '../../../src/broker/embedded/subscribers.js'
import { limits } from './limits.js'
import { connect, somePeer } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

let broker: EmbeddedBroker | undefined
afterEach(() => broker?.close())

async function connack(more: Partial<IConnectPacket>, options: Partial<EmbeddedOptions> = {}): Promise<IConnackPacket> {
  broker = await createEmbedded({ data: 'none', ...limits, ...options }, createLog({ level: 'silent', format: 'json' }))
  const stream = await broker.open(somePeer)
  const packet: IConnectPacket = { cmd: 'connect', protocolId: 'MQTT', protocolVersion: 5, clientId: 'c', ...more }
  stream.write(generate(packet))
  return new Promise(resolve => {
    const packets = parser({ protocolVersion: packet.protocolVersion ?? 4 })
    packets.on('packet', resolve as never)
    stream.on('data', bytes => packets.parse(bytes))
  })
}

it.each([
  [0, 60],
  [61, 60],
  [60, undefined],
])('a client with a keep alive of %i s is told %s, where 60 s are the longest', async (keepalive, serverKeepAlive) => {
  const { properties } = await connack({ keepalive }, { maxKeepAlive: 60_000 })
  expect(properties?.serverKeepAlive).toBe(serverKeepAlive)
})

it('a client before MQTT 5 keeps its keep alive, as it cannot be told another one', async () => {
  expect(await connack({ protocolVersion: 4, keepalive: 0 }, { maxKeepAlive: 60_000 })).toMatchObject({ returnCode: 0 })
})

it('a member of a group listens to the filter of the group, until it has neither that nor the filter itself', async () => {
  const heard: string[] = []
  const note = (what: string) => (_: SubscribingClient, filters: readonly string[]) =>
    heard.push(`${what} ${filters.join(' ')}`)
  const subscriptions = { subscribed: note('+'), unsubscribed: note('-'), left: () => {} }
  const log = createLog({ level: 'silent', format: 'json' })
  broker = await createEmbedded({ data: 'none', ...limits }, log, { subscriptions })
  const session = await connect(broker)
  await session.client.subscribeAsync(['$share/g/a', 'a'])
  await session.client.unsubscribeAsync('a')
  await session.client.unsubscribeAsync('$share/g/a')
  expect(heard).toEqual(['+ a a', '- ', '- a'])
  await session.end()
})

it('a topic that is too long gets no alias: its connection ends', async () => {
  const log = createLog({ level: 'silent', format: 'json' })
  broker = await createEmbedded({ data: 'none', ...limits, topicLength: 100 }, log)
  const { session } = await connectRaw(broker, { clientId: 'c', clean: true, protocolVersion: 5 })
  const publish = { cmd: 'publish', topic: 'x'.repeat(101), payload: '', qos: 1, dup: false, retain: false } as const
  session.send({ ...publish, messageId: 1 })
  expect(await session.next()).toMatchObject({ cmd: 'puback', reasonCode: 0x90 })
  session.send({ ...publish, messageId: 2, properties: { topicAlias: 1 } })
  expect(await session.next()).toMatchObject({ cmd: 'disconnect', reasonCode: 0x90 })
  expect(await session.next()).toBeUndefined()
})

it('a message of QoS 2 that is refused when it comes again has its packet identifier back', async () => {
  const log = createLog({ level: 'silent', format: 'json' })
  let forbidden = ''
  const rights = {
    ...{ identity: anonymous, maySubscribe: () => true, mayRead: () => true, release: () => {} },
    mayPublish: (topic: string) => topic !== forbidden,
  }
  broker = await createEmbedded({ data: 'none', ...limits }, log, { authorizer: { admit: async () => rights } })
  const subscriber = await connect(broker)
  await subscriber.subscribe('#', 2)
  const options = {
    clientId: 'c',
    clean: false,
    protocolVersion: 5,
    properties: { sessionExpiryInterval: 100 },
  } as const
  const publish = { cmd: 'publish', payload: '', qos: 2, retain: false, messageId: 5 } as const
  const { session: first } = await connectRaw(broker, options)
  first.send({ ...publish, topic: 'a', dup: false })
  expect(await first.next()).toMatchObject({ cmd: 'pubrec', reasonCode: 0 })
  first.stream.destroy()

  forbidden = 'a'
  const { session: second } = await connectRaw(broker, options)
  second.send({ ...publish, topic: 'a', dup: true })
  expect(await second.next()).toMatchObject({ cmd: 'pubrec', reasonCode: 0x87 })
  second.send({ ...publish, topic: 'b', dup: false })
  expect(await second.next()).toMatchObject({ cmd: 'pubrec', reasonCode: 0 })
  expect([await subscriber.next(), await subscriber.next()]).toMatchObject([{ topic: 'a' }, { topic: 'b' }])
  await Promise.all([second.end(), subscriber.end()])
})
