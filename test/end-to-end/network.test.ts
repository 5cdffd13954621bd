import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { listenEverywhere, payloadsOf } from '../helpers/event-clients.js'
import { startTestGateway } from '../helpers/gateway.js'
import { handshake, mqttThrough } from '../helpers/handshake.js'
import { makeNetwork } from '../helpers/network.js'
import { run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

/** A gateway, and a mosquitto on another host. */
async function start() {
  const network = makeNetwork()
  const directory = mkdtempSync(join(tmpdir(), 'mqway-network-'))
  const file = join(directory, 'mosquitto.conf')
  writeFileSync(file, `listener 1883 ${network.address}\nallow_anonymous true\nuser root\n`)
  const [command = '', ...args] = [...network.command, 'mosquitto', '-c', file]
  const mosquitto = run(command, args)
  onTestFinished(async () => {
    await mosquitto.stop('SIGKILL')
    rmSync(directory, { recursive: true })
  })
  const gateway = await startTestGateway({
    broker: { url: `mqtt://${network.address}:1883`, connectTimeout: '500ms' },
    push: { topics: ['news/#'] },
  })
  onTestFinished(() => gateway.close())
  const readiness = async () => (await fetch(`${gateway.urls.http}/readyz`)).status
  await eventually(async () => (await readiness()) === 200)
  const url = `${gateway.urls.http.replace('http', 'ws')}/mqtt`
  return { network, gateway, readiness, url }
}

const tools = ['root', 'ip', 'tc', 'iptables', 'mosquitto']

describeWith(tools, 'the network between a gateway and its broker', () => {
  it('may be slow and lose packets: everything arrives, once and in order', async () => {
    const { network, gateway, url } = await start()
    const readers = await listenEverywhere(() => gateway.urls, ['news/#'])
    const client = await mqttThrough(url)
    const published: string[] = []
    for (const [name, disturb] of Object.entries({
      slow: () => network.slowDown(512_000),
      lossy: () => network.lose(0.2),
    })) {
      disturb()
      const payloads = [1, 2, 3, 4].map(number => `${name} ${number}`)
      for (const payload of payloads) await client.publishAsync('news/a', payload.padEnd(8000, '.'), { qos: 1 })
      const { status } = await fetch(`${gateway.urls.http}/v1/publish?topic=news/a`, { method: 'POST', body: name })
      expect(status).toBe(201)
      published.push(...payloads, name)
    }
    network.lose(0)
    await eventually(() => [...readers.values()].every(reader => payloadsOf(reader).length >= published.length))
    for (const reader of readers.values()) {
      expect(payloadsOf(reader).map(payload => payload.replace(/\.+$/, ''))).toEqual(published)
    }
  })

  it.each(['to', 'from', 'both'] as const)(
    'may be cut (%s the broker): readiness says so, new tunnels are refused in time, and open ones go on afterwards',
    async direction => {
      const { network, gateway, readiness, url } = await start()
      const readers = await listenEverywhere(() => gateway.urls, ['news/#'])
      const client = await mqttThrough(url)
      network.lose(1, direction)
      const acknowledged = client.publishAsync('news/a', 'during', { qos: 1 })
      await eventually(async () => (await readiness()) === 503)
      expect((await handshake(url)).status).toBe(504)
      expect((await fetch(`${gateway.urls.http}/healthz`)).status).toBe(200)

      network.lose(0)
      await acknowledged
      await client.publishAsync('news/a', 'after', { qos: 1 })
      await eventually(async () => (await readiness()) === 200)
      await eventually(() => [...readers.values()].every(reader => payloadsOf(reader).includes('after')))
      for (const reader of readers.values()) expect(payloadsOf(reader)).toEqual(['during', 'after'])
    },
  )
})
