import mqtt from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import type { ServingProgram } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { startSharedGateways } from '../helpers/shared-gateways.js'
import { eventually } from '../helpers/wait.js'

describeWith(['redis-server', 'mosquitto'], 'presence in several gateways', () => {
  it('is the same at each of them, also after the one that publishes it is killed', async () => {
    const shared = await startSharedGateways()
    const watcher = await mqtt.connectAsync(`mqtt://127.0.0.1:${shared.broker.port}`)
    onTestFinished(() => watcher.endAsync(true))
    const told: string[] = []
    watcher.on('message', (topic, payload) => {
      const { event, device, count } = JSON.parse(String(payload))
      told.push(`${topic} ${event} ${device} ${count}`)
    })
    await watcher.subscribeAsync('presence/#')
    const push = { presence: { messages: true, grace: '1s' } }
    const a = await shared.start({ push })
    await eventually(async () => (await shared.redis.client.get('mqway:coordinator')) !== null)
    const b = await shared.start({ push })

    // A response that nothing refers to is closed.
    const responses: Response[] = []
    const stream = async (program: ServingProgram, device: string): Promise<() => void> => {
      const abort = new AbortController()
      onTestFinished(() => abort.abort())
      const response = await fetch(`${program.url('http')}/v1/events?topic=news/x&device=${device}`, abort)
      responses.push(response)
      expect(response.status).toBe(200)
      return () => abort.abort()
    }
    const devicesAt = async (program: ServingProgram): Promise<string> => {
      const response = await fetch(`${program.url('http')}/v1/presence?topic=news/x`)
      const { listeners } = (await response.json()) as { listeners: { device: string }[] }
      return `${listeners.map(({ device }) => device).sort()}`
    }
    await stream(a, 'stays')
    const endFirst = await stream(a, 'moves')
    await stream(b, 'other')
    await eventually(async () => (await devicesAt(a)) === 'moves,other,stays')
    await eventually(async () => (await devicesAt(b)) === 'moves,other,stays')
    endFirst()
    await stream(b, 'moves')
    await eventually(() => told.length === 3)
    // What is published and not marked is published again.
    await eventually(async () => {
      const entries = await shared.redis.client.xrange('mqway:presence', '-', '+')
      const joined = entries.find(([, fields]) => fields.some(field => field.includes('"other"')))
      return entries.some(([, [kind, mark]]) => kind === 'mark' && `${mark}-0` >= `${joined?.[0]}`)
    })
    await a.stop('SIGKILL')
    expect(await devicesAt(b)).toBe('moves,other,stays')
    await eventually(async () => (await devicesAt(b)) === 'moves,other')
    await eventually(() => told.length === 4)
    expect(
      told
        .slice(0, 3)
        .map(line => line.replace(/ \d$/, ''))
        .sort(),
    ).toEqual(['moves', 'other', 'stays'].map(device => `presence/news/x join ${device}`))
    expect(told[3]).toBe('presence/news/x leave stays 2')
    expect(responses).toHaveLength(4)
  }, 40_000)
})
