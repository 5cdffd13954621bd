import { generate } from 'mqtt-packet'
import { expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connectRaw } from './raw-session.js'

it('a thousand messages in one write, to nobody, are all taken, and the connection is there after them', async () => {
  const broker = await createEmbedded({ data: 'none', ...limits }, createLog({ level: 'silent', format: 'json' }))
  const { session } = await connectRaw(broker, { clientId: 'burst', clean: true })
  const before = broker.figures().publishesReceived
  const message = generate({ cmd: 'publish', topic: 't', payload: 'x', qos: 0, dup: false, retain: false })
  session.stream.write(Buffer.concat([...Array<Buffer>(1000).fill(message), generate({ cmd: 'pingreq' })]))
  expect(await session.next()).toMatchObject({ cmd: 'pingresp' })
  expect(broker.figures().publishesReceived - before).toBe(1000)
  await session.end()
  await broker.close()
})
