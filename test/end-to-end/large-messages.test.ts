import { randomBytes } from 'node:crypto'
import mqtt from 'mqtt'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'

let gateway: TestGateway
beforeAll(async () => {
  gateway = await startTestGateway()
})
afterAll(() => gateway?.close())

it.each(['http', 'https', 'mqtt'] as const)(
  'carries messages of all sizes to the built-in broker and back, over %s',
  async scheme => {
    const url = gateway.urls[scheme]
    const address = scheme === 'mqtt' ? url : `${url.replace('http', 'ws')}/mqtt`
    const client = await mqtt.connectAsync(address, { rejectUnauthorized: false, reconnectPeriod: 0 })
    onTestFinished(() => client.endAsync(true))
    await client.subscribeAsync('large', { qos: 1 })
    for (const size of [16 * 1024, 64 * 1024 - 20, 64 * 1024, 64 * 1024 + 1, 300_000, 4_000_000]) {
      const payload = randomBytes(size)
      const got = new Promise<Buffer>(resolve => client.once('message', (_, bytes) => resolve(bytes)))
      await client.publishAsync('large', payload, { qos: 1 })
      expect(payload.equals(await got), `${size} bytes`).toBe(true)
    }
  },
)
