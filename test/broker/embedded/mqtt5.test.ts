import { generate, type IConnackPacket, type IConnectPacket, parser } from 'mqtt-packet'
import { afterEach, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker, type EmbeddedOptions } from '../../../src/broker/embedded/embedded.js'
import type { SubscribingClient } from '../../../src/broker/embedded/subscribers.js'
import { limits } from './limits.js'
import { connect, somePeer } from './mqtt-session.js'

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
