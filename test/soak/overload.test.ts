import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import mqtt from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { ask } from '../helpers/asking.js'
import { serving } from '../helpers/program.js'
import { eventually } from '../helpers/wait.js'

/** How long the overload lasts; only with `npm run soak`, which makes it ten minutes: the clients need a core for themselves. */
const seconds = Number(process.env['SOAK_SECONDS'] ?? 0)
const places = 60
const recovery = 10_000

/** Waits for a condition, at most for some milliseconds. */
const within = (milliseconds: number, condition: () => boolean | Promise<boolean>): Promise<unknown> =>
  Promise.race([eventually(condition), after(milliseconds, undefined, { ref: false })])

it.runIf(seconds > 0)(
  `a gateway that three times as many clients want to use as it has places, for ${seconds} s, serves those that it has, refuses the others with a reason, and recovers within 10 s`,
  async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mqway-overload-'))
    onTestFinished(() => rmSync(directory, { recursive: true }))
    const limits = {
      connections: places,
      connectionsPerAddress: places,
      upgradesPerSecond: 'off',
      requestsPerSecond: 10,
      requestsBurst: 10,
    }
    writeFileSync(join(directory, 'mqway.yaml'), JSON.stringify({ limits }))
    const gateway = await serving(['--http-port', '0', '--https-port', 'off', '--mqtt-port', '0'], directory)
    gateway.child.stdout.resume()
    onTestFinished(() => gateway.stop('SIGKILL'))
    const urls = { http: gateway.url('http'), https: '' }
    // Not by `fetch`: that of Node.js 20 may wait forever when its connections are closed at once.
    const publish = (topic: string) =>
      ask(urls, 'http', { method: 'POST', path: `/v1/publish?topic=${topic}`, body: 'x' })
    /** The sum of the series whose line begins so. */
    const metric = async (begin: string): Promise<number> => {
      const text = await ask(urls, 'http', { path: '/metrics' }).then(
        reply => reply.text,
        () => '',
      )
      const lines = text.split('\n').filter(line => line.startsWith(begin))
      return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
    }
    const residentBytes = (): number => {
      const status = readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8')
      return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024
    }

    const [reader, writer] = [
      await mqtt.connectAsync(gateway.url('mqtt'), { reconnectPeriod: 0 }),
      await mqtt.connectAsync(gateway.url('mqtt'), { reconnectPeriod: 0 }),
    ]
    onTestFinished(() => {
      for (const client of [reader, writer]) client.end(true)
    })
    const received: string[] = []
    reader.on('message', (_topic, payload) => received.push(String(payload)))
    await reader.subscribeAsync('news', { qos: 1 })

    const endAt = performance.now() + seconds * 1000
    const isOver = (): boolean => performance.now() > endAt
    const answers = new Map<string, number>()
    const count = (answer: string): void => void answers.set(answer, (answers.get(answer) ?? 0) + 1)
    let most = 0
    let halfway = 0
    /** Connects again 50 ms after it was refused or connected. */
    const visitor = async (number: number): Promise<void> => {
      while (!isOver()) {
        const socket = new WebSocket(gateway.url('ws'), 'mqtt', { localAddress: `127.0.0.${2 + (number % 50)}` })
        socket.on('error', () => {})
        const status = await new Promise<number>(resolve => {
          socket.on('open', () => resolve(101))
          socket.on('unexpected-response', (_request, response) => {
            count(`retry-after ${response.headers['retry-after'] === undefined ? 'missing' : 'given'}`)
            response.resume().on('close', () => resolve(response.statusCode ?? 0))
          })
          socket.on('close', () => resolve(0))
        })
        count(String(status))
        await after(50)
        socket.terminate()
      }
    }
    const publisher = async (number: number): Promise<void> => {
      while (!isOver()) {
        const response = await publish(`load/${number}`).catch(() => undefined)
        if (response) count(`publish ${response.status}`)
      }
    }
    let sent = 0
    const steady = async (): Promise<void> => {
      while (!isOver()) {
        await writer.publishAsync('news', String(sent++), { qos: 1 })
        if (halfway === 0 && performance.now() > endAt - seconds * 500) halfway = residentBytes()
        most = Math.max(most, await metric('mqway_connections{transport="websocket",state="open"}'))
      }
    }
    await Promise.all([
      steady(),
      ...Array.from({ length: 3 * places }, (_, number) => visitor(number)),
      ...Array.from({ length: 10 }, (_, number) => publisher(number)),
    ])
    const overAt = performance.now()

    expect(most).toBeLessThanOrEqual(places)
    expect(
      [...answers.keys()].filter(answer => !/^(0|101|429|503|retry-after given|publish (201|429))$/.test(answer)),
    ).toEqual([])
    for (const answer of ['101', '503', 'publish 201', 'publish 429']) {
      expect([answer, answers.get(answer) ?? 0]).not.toEqual([answer, 0])
    }
    // Beyond twice as many sockets as places, connections are closed without a response, and counted.
    const refused = (answers.get('0') ?? 0) + (answers.get('503') ?? 0)
    await within(20_000, async () => (await metric('mqway_refusals_total')) >= refused)
    expect(await metric('mqway_refusals_total')).toBeGreaterThanOrEqual(refused)
    await within(20_000, () => received.length === sent)
    expect([reader.connected, writer.connected]).toEqual([true, true])
    expect(received).toEqual(Array.from({ length: sent }, (_, number) => String(number)))
    await eventually(async () => {
      const socket = new WebSocket(gateway.url('ws'), 'mqtt')
      const isOpen = await new Promise<boolean>(resolve => {
        socket.on('open', () => resolve(true)).on('error', () => resolve(false))
      })
      socket.terminate()
      return isOpen
    })
    await eventually(async () => {
      return (await publish('news')).status === 201
    })
    expect(performance.now() - overAt).toBeLessThan(recovery)
    const growth = residentBytes() - halfway
    // In a short run, the memory has not settled.
    if (seconds < 30) return
    process.stdout.write(
      `${JSON.stringify(Object.fromEntries(answers))}, at most ${most} open, ${sent} messages, ${halfway} B halfway, ${growth} B more at the end\n`,
    )
    expect(growth).toBeLessThan(64 * 1024 ** 2)
  },
  seconds * 1000 + 60_000,
)
