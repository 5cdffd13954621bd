import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { type Listen, pushTransports } from '../helpers/event-clients.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { type ServingProgram, serving } from '../helpers/program.js'
import { startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const seconds = Number(process.env['SOAK_SECONDS'] ?? 2)
const after = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

describeWith(['redis-server', 'mosquitto'], `three gateways with faults for ${seconds} s`, () => {
  it('lose, repeat and reorder nothing', { timeout: seconds * 1000 + 60_000 }, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'mqway-faults-'))
    const redis = await startRedis(['--appendonly', 'yes'])
    const broker = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous true', 'max_queued_messages 1000000'])
    const file = join(directory, 'mqway.json')
    const push = { topics: ['news/#'], journal: { redis: { url: redis.url } }, presence: { messages: false } }
    const off = { https: { port: 'off' }, mqtt: { port: 'off' }, data: 'none' }
    const config = { ...off, http: { port: 0 }, broker: `mqtt://127.0.0.1:${broker.port}`, push }
    await writeFile(file, JSON.stringify(config))
    const start = (): Promise<ServingProgram> => serving(['--config', file], directory)
    const watched = await start()
    const others = [await start(), await start()]
    onTestFinished(async () => {
      await Promise.all([watched, ...others].map(program => program.stop('SIGKILL')))
      await Promise.all([redis.stop(), broker.stop()])
      await rm(directory, { recursive: true, force: true })
    })
    await watched.logged('this gateway reads the broker')
    const listen = pushTransports['an event stream'] as Listen
    const client = await listen({ http: watched.url('http'), https: '' }, { topics: ['news/#'] })

    const publisher = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`)
    const acknowledged: string[] = []
    let isOver = false
    const publishing = (async () => {
      for (let index = 0; !isOver; index += 10) {
        const payloads = Array.from({ length: 10 }, (_, more) => `${index + more}`)
        await Promise.all(payloads.map(payload => publisher.publishAsync('news/x', payload, { qos: 1 })))
        acknowledged.push(...payloads)
      }
    })()
    const stop = async (program: ServingProgram): Promise<void> => {
      program.child.kill('SIGSTOP')
      await after(4000)
      program.child.kill('SIGCONT')
    }
    const replace = async (index: number): Promise<void> => {
      await others[index]?.stop(Math.random() < 0.5 ? 'SIGKILL' : 'SIGTERM')
      others[index] = await start()
    }
    const faults: (() => Promise<void>)[] = [
      () => stop(watched),
      () => replace(0),
      () => replace(1),
      () => stop(others[0] ?? watched),
      async () => {
        redis.pause()
        await after(Math.random() * 6000)
        redis.resume()
      },
      async () => {
        await redis.kill()
        await after(Math.random() * 4000)
        await redis.start()
      },
    ]
    const end = performance.now() + seconds * 1000
    do {
      await faults[Math.floor(Math.random() * faults.length)]?.()
      await after(Math.random() * 2000)
    } while (performance.now() < end)
    isOver = true
    await publishing
    await publisher.endAsync()
    await eventually(() => client.events.at(-1)?.payload.toString() === acknowledged.at(-1))
    expect(client.events.map(({ payload }) => payload.toString())).toEqual(acknowledged)
    expect(client.gaps).toEqual([])
  })
})
