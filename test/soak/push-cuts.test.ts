import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { startCuttingProxy } from '../helpers/cutting-proxy.js'
import { listenEverywhere, payloadsOf } from '../helpers/event-clients.js'
import { startTestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

/** How long connections are cut, in milliseconds; longer with `npm run soak`. */
const cutFor = Number(process.env['SOAK_SECONDS'] ?? 2) * 1000

describe('a proxy that cuts connections at random', () => {
  it(
    'costs no client an event, and gives none twice',
    async () => {
      const gateway = await startTestGateway()
      onTestFinished(() => gateway.close())
      const [http, https] = [
        await startCuttingProxy(() => Number(new URL(gateway.urls.http).port)),
        await startCuttingProxy(() => Number(new URL(gateway.urls.https).port)),
      ]
      onTestFinished(async () => {
        await Promise.all([http.close(), https.close()])
      })
      const urls = { http: `http://127.0.0.1:${http.port}`, https: `https://127.0.0.1:${https.port}` }
      const clients = await listenEverywhere(() => urls, ['news/#'])
      const publisher = await mqtt.connectAsync(gateway.urls.mqtt, { reconnectPeriod: 0 })
      onTestFinished(() => publisher.endAsync(true))

      const published: string[] = []
      const end = Date.now() + cutFor
      while (Date.now() < end) {
        for (let burst = Math.ceil(Math.random() * 10); burst > 0; burst--) {
          const payload = `${published.length}`
          published.push(payload)
          await publisher.publishAsync('news/x', payload, { qos: burst % 2 === 0 ? 0 : 1 })
        }
        http.cut(Math.random())
        if (Math.random() < 0.3) https.cut(Math.random())
        await new Promise(resolve => setTimeout(resolve, 5 + Math.random() * 20))
      }
      await publisher.publishAsync('news/x', 'last', { qos: 1 })
      published.push('last')
      for (const [name, client] of clients) {
        await eventually(() => String(client.latest?.payload) === 'last')
        expect({ name, payloads: payloadsOf(client), gaps: client.gaps }).toEqual({
          name,
          payloads: published,
          gaps: [],
        })
      }
      expect(http.cuts + https.cuts).toBeGreaterThan(20)
      expect([...clients.values()].every(({ returns }) => returns > 0)).toBe(true)
    },
    cutFor + 30_000,
  )
})
