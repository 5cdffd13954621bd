import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { listenEverywhere, payloadsOf } from '../helpers/event-clients.js'
import { startTestGateway } from '../helpers/gateway.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { type ServingProgram, serving } from '../helpers/program.js'
import { eventually } from '../helpers/wait.js'

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}

describe('a gateway that is killed', () => {
  it('has everything that was acknowledged when it is back, and each client goes on where it was', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'mqway-killed-'))
    onTestFinished(() => rm(directory, { recursive: true, force: true }))
    const [httpPort, httpsPort, mqttPort] = [await freePort(), await freePort(), await freePort()]
    await writeFile(
      join(directory, 'mqway.yaml'),
      JSON.stringify({ http: { port: httpPort }, https: { port: httpsPort }, mqtt: { port: mqttPort } }),
    )
    let program: ServingProgram = await serving([], directory)
    onTestFinished(() => program.stop('SIGKILL'))
    const urls = { http: `http://127.0.0.1:${httpPort}`, https: `https://127.0.0.1:${httpsPort}` }
    const clients = await listenEverywhere(() => urls, ['news/#'])

    const acknowledged: string[] = []
    let sent = 0
    const publishUntilKilled = async (): Promise<void> => {
      const publisher = await mqtt.connectAsync(`mqtt://127.0.0.1:${mqttPort}`, { reconnectPeriod: 0 })
      publisher.on('error', () => {})
      let lost = false
      const closed = new Promise<void>(resolve => publisher.once('close', () => resolve())).then(() => {
        lost = true
      })
      while (!lost) {
        const payload = `${sent++}`
        const done = publisher.publishAsync('news/x', payload, { qos: 1 }).then(
          () => acknowledged.push(payload),
          () => {},
        )
        await Promise.race([done, closed])
      }
      await publisher.endAsync(true)
    }
    for (let round = 0; round < 2; round++) {
      const publishing = publishUntilKilled()
      const enough = acknowledged.length + 200
      await eventually(() => acknowledged.length >= enough)
      await program.stop('SIGKILL')
      await publishing
      program = await serving([], directory)
    }
    const last = await fetch(`${urls.http}/v1/publish?topic=news/x`, { method: 'POST', body: 'last' })
    expect(last.status).toBe(201)
    for (const [name, client] of clients) {
      await eventually(() => String(client.latest?.payload) === 'last')
      const got = payloadsOf(client)
      expect({ name, gaps: client.gaps, missing: acknowledged.filter(payload => !got.includes(payload)) }).toEqual({
        name,
        gaps: [],
        missing: [],
      })
      // An event of one id comes once; in the order in which all have it.
      const ids = client.events.map(({ id }) => id)
      expect(new Set(ids).size).toBe(ids.length)
      expect(got.filter(payload => payload !== 'last').map(Number)).toEqual(
        [...new Set(got)]
          .filter(payload => payload !== 'last')
          .map(Number)
          .sort((a, b) => a - b),
      )
    }
  }, 60_000)
})

describe('a broker that is killed', () => {
  it('leaves those who listen connected, publishing is refused for a while, and then all goes on', async () => {
    let broker = await startMosquitto()
    onTestFinished(() => broker.stop())
    const config = { url: `mqtt://127.0.0.1:${broker.port}` }
    const gateway = await startTestGateway({ broker: config, mqtt: { port: 'off' }, push: { topics: ['news/#'] } })
    onTestFinished(() => gateway.close())
    const isReady = async (): Promise<boolean> => (await fetch(`${gateway.urls.http}/readyz`)).status === 200
    const publish = (body: string): Promise<Response> =>
      fetch(`${gateway.urls.http}/v1/publish?topic=news/x`, { method: 'POST', body })
    await eventually(isReady)
    const clients = await listenEverywhere(() => gateway.urls, ['news/#'])
    expect((await publish('before')).status).toBe(201)

    await broker.kill()
    await eventually(async () => !(await isReady()))
    const refused = await publish('while it is away')
    expect([refused.status, await refused.json()]).toEqual([503, expect.objectContaining({ reason: 'broker-away' })])
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)

    broker = await startMosquitto({ kind: 'tcp', port: broker.port })
    await eventually(isReady)
    await eventually(async () => (await publish('after')).status === 201)
    for (const [name, client] of clients) {
      await eventually(() => String(client.latest?.payload) === 'after')
      expect({ name, payloads: payloadsOf(client), returns: client.returns }).toEqual({
        name,
        payloads: ['before', 'after'],
        returns: 0,
      })
    }
  }, 40_000)
})
