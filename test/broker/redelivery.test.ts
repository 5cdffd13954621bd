import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { generate, type IPublishPacket, parser } from 'mqtt-packet'
import { expect, it } from 'vitest'
import { createEmbedded } from '../../src/broker/embedded.js'
import { createLog } from '../../src/log.js'
import { limits } from './limits.js'
import { connect, somePeer } from './mqtt-session.js'

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
