import { afterEach, beforeEach, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connectRaw } from './raw-session.js'

const topic = '$SYS/broker/connection/bridge/state'
const lines: string[] = []
let broker: EmbeddedBroker

beforeEach(async () => {
  lines.length = 0
  const log = createLog({ level: 'silent', format: 'json' })
  log.info = (_: unknown, message?: string) => lines.push(String(message))
  broker = await createEmbedded({ data: 'none', ...limits }, log)
})
afterEach(() => broker.close())

it.each([1, 2] as const)(
  'messages of QoS %i to $SYS are acknowledged, go to nobody, and are logged once',
  async qos => {
    const { session: reader } = await connectRaw(broker, { clientId: 'r', clean: true })
    await reader.subscribe(['$SYS/broker/connection/#', 'end'], 0)
    const { session } = await connectRaw(broker, {
      clientId: 'bridge',
      clean: true,
      will: { topic, payload: Buffer.from('0'), qos: 1, retain: true },
    })
    for (const messageId of [1, 2]) {
      session.send({ cmd: 'publish', topic, payload: '1', qos, dup: false, retain: true, messageId })
      expect(await session.next()).toMatchObject({ cmd: qos === 1 ? 'puback' : 'pubrec', messageId })
    }
    session.send({ cmd: 'publish', topic, payload: '1', qos: 0, dup: false, retain: true })
    session.send({ cmd: 'publish', topic: 'end', payload: '', qos: 0, dup: false, retain: false })
    expect(await reader.next()).toMatchObject({ cmd: 'publish', topic: 'end' })
    expect(lines.filter(line => line.includes('$SYS'))).toHaveLength(1)
    session.stream.destroy()
    await reader.end()
  },
)
