import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { Level } from 'level'
import { generate, type IPublishPacket, parser } from 'mqtt-packet'
import { expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connect, somePeer } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })

/** The next `count` messages on a stream that nobody acknowledges them on. */
async function messages(stream: Duplex, count: number): Promise<IPublishPacket[]> {
  const found: IPublishPacket[] = []
  const packets = parser()
  packets.on('packet', packet => {
    if (packet.cmd === 'publish') found.push(packet)
  })
  while (found.length < count) packets.parse((await once(stream, 'data'))[0])
  return found
}

it('a message that was sent before comes again as a duplicate, and one that was not does not [MQTT-3.3.1-1]', async () => {
  const broker = await createEmbedded({ data: 'none', ...limits }, log)
  const publisher = await connect(broker)
  const connection = { cmd: 'connect', clientId: 'returning', clean: false, keepalive: 0 } as const
  const first = await broker.open(somePeer)
  first.write(generate(connection))
  first.write(generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'line', qos: 1 }] }))
  for (let bytes = 0; bytes < 4 + 5; ) bytes += (await once(first, 'data'))[0].length
  const sent = messages(first, 1)
  await publisher.publish('line', 'sent', { qos: 1 })
  expect(await sent).toMatchObject([{ dup: false }])
  first.destroy()
  await publisher.publish('line', 'not sent', { qos: 1 })

  const second = await broker.open(somePeer)
  second.write(generate(connection))
  expect(await messages(second, 2)).toMatchObject([{ dup: true }, { dup: false }])
  second.destroy()
  await publisher.end()
  await broker.close()
})

it.each([1, 2] as const)(
  'a session that gets RETAIN as it was published is rid of a live message of QoS %i with it when it has acknowledged it',
  async qos => {
    const directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    const broker = await createEmbedded({ ...limits, data: directory }, log)
    const connectOptions = { clientId: 'bridge', clean: false, protocolVersion: 4 as const, bridgeMode: true }
    const first = await connectRaw(broker, connectOptions)
    await first.session.subscribe(['#'])
    const publisher = await connect(broker)
    await publisher.publish('state', 'on', { qos, retain: true })
    const got = await first.session.next()
    expect(got).toMatchObject({ cmd: 'publish', topic: 'state', retain: true, qos: 1 })
    first.session.send({ cmd: 'puback', messageId: got?.messageId ?? 0 })
    await publisher.publish('news', 'x', { qos })
    const next = await first.session.next()
    expect(next).toMatchObject({ topic: 'news', retain: false })
    first.session.send({ cmd: 'puback', messageId: next?.messageId ?? 0 })
    await first.session.end()

    await publisher.publish('state', 'off', { qos, retain: true })
    await publisher.publish('news', 'y', { qos })
    const again = await connectRaw(broker, connectOptions)
    expect(again.sessionPresent).toBe(true)
    expect(await again.session.next()).toMatchObject({ topic: 'state', payload: Buffer.from('off'), retain: true })
    expect(await again.session.next()).toMatchObject({ topic: 'news', payload: Buffer.from('y'), retain: false })
    await Promise.all([again.session.end(), publisher.end()])
    await broker.close()
    await rm(directory, { recursive: true })
  },
)

it('a client whose queue cannot be read is closed, instead of never getting a message again', async () => {
  const log = createLog({ level: 'silent', format: 'json' })
  const directory = await mkdtemp(join(tmpdir(), 'mqway-'))
  let broker = await createEmbedded({ ...limits, data: directory }, log)
  const { session } = await connectRaw(broker, { clientId: 'away', clean: false })
  await session.subscribe(['a'])
  await session.end()
  const publisher = await connect(broker)
  await publisher.publish('a', '1', { qos: 1 })
  await publisher.end()
  await broker.close()
  const database = new Level(join(directory, 'broker'))
  const invalid = Buffer.from([0xc1])
  for await (const key of database.keys({ gte: 'outgoing:', lt: 'outgoing;' })) {
    await database.put(key, invalid, { valueEncoding: 'buffer' })
  }
  await database.close()
  broker = await createEmbedded({ ...limits, data: directory }, log)
  const again = await connectRaw(broker, { clientId: 'away', clean: false })
  expect(await again.session.next()).toBeUndefined()
  await broker.close()
  await rm(directory, { recursive: true })
})
