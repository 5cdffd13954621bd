import mqtt from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { pushTransports } from '../helpers/event-clients.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { mqttThrough } from '../helpers/handshake.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { behindCaddy, behindHaproxy, type GatewayPorts, startCaddy, startHaproxy } from '../helpers/proxies.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

async function start(config: ConfigInput): Promise<TestGateway & { readonly ports: GatewayPorts }> {
  const gateway = await startTestGateway({ ...config, https: { port: 'off' } })
  onTestFinished(() => gateway.close())
  return { ...gateway, ports: { http: Number(new URL(gateway.urls.http).port), mqtt: gateway.mqttPort } }
}

const proxies = {
  haproxy: { program: 'haproxy', mqway: behindHaproxy.mqway, startProxy: startHaproxy },
  Caddy: { program: 'caddy', mqway: behindCaddy.mqway, startProxy: startCaddy },
}

async function addressesOf({ urls }: TestGateway): Promise<Record<string, string>> {
  const { clients } = JSON.parse(await (await fetch(`${urls.http}/v1/clients`)).text())
  return Object.fromEntries(clients.map((client: Record<string, string>) => [client['clientId'], client['address']]))
}

for (const [name, { program, mqway, startProxy }] of Object.entries(proxies)) {
  describeWith([program, 'openssl'], `behind ${name} with the lines of docs/operations.md`, () => {
    it('MQTT of a page is carried over /mqtt, and its address is known', async () => {
      const gateway = await start(mqway)
      const { https } = await startProxy(gateway.ports)
      const url = `${https.replace('https', 'wss')}/mqtt`
      const client = await mqttThrough(
        url,
        { localAddress: '127.0.0.2', headers: { origin: https } },
        { clientId: 'page' },
      )
      const arrived = nextMessage(client)
      await client.subscribeAsync('news/#', { qos: 1 })
      await client.publishAsync('news/europe', 'hello', { qos: 1 })
      expect(String((await arrived).payload)).toBe('hello')
      expect(await addressesOf(gateway)).toEqual({ page: '127.0.0.2' })
    })

    it.each(['an event stream over HTTP/2', 'a socket'])('each event comes at once over %s', async transport => {
      const gateway = await start(mqway)
      const { https } = await startProxy(gateway.ports)
      const client = await pushTransports[transport]?.({ http: https, https }, { topics: ['news/#'] })
      if (!client) throw new Error(`there is no ${transport}`)
      for (const payload of ['one', 'two', 'three']) {
        const url = `${gateway.urls.http}/v1/publish?topic=news/europe`
        expect((await fetch(url, { method: 'POST', body: payload })).status).toBe(201)
        await eventually(() => client.events.at(-1)?.payload.toString() === payload)
      }
      await client.close()
    })
  })
}

describeWith(['haproxy', 'openssl'], 'an MQTT port behind haproxy', () => {
  it('has the address of each client from the PROXY protocol', async () => {
    const gateway = await start({ ...behindHaproxy.mqway, limits: { connectionsPerAddress: 1 } })
    const { mqttsPort } = await startHaproxy(gateway.ports)
    const options = (localAddress: string) => ({
      ...{ protocol: 'mqtts' as const, host: '127.0.0.1', port: mqttsPort, rejectUnauthorized: false },
      ...{ reconnectPeriod: 0, localAddress, clientId: localAddress },
    })
    for (const address of ['127.0.0.2', '127.0.0.3']) {
      const client = await mqtt.connectAsync(options(address))
      onTestFinished(() => void client.end(true))
    }
    expect(await addressesOf(gateway)).toEqual({ '127.0.0.2': '127.0.0.2', '127.0.0.3': '127.0.0.3' })
    const third = mqtt.connect({ ...options('127.0.0.2'), clientId: 'third' })
    await new Promise<void>(resolve => third.once('close', () => resolve()))
    expect(third.connected).toBe(false)
  })
})
