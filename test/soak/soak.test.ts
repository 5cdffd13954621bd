import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ServingProgram, serving } from '../helpers/program.js'
import { eventually } from '../helpers/wait.js'

/** How long clients come and go; `npm run soak` makes it ten minutes. */
const seconds = Number(process.env['SOAK_SECONDS'] ?? 2)
const clientsAtATime = 40
/** What resident memory may grow in the second half; only a long run can tell that from the heap's settling. */
const allowedGrowth = 64 * 1024 ** 2
const longRun = 300

describe(`a gateway under ${seconds} s of clients that come, talk and leave`, () => {
  let gateway: ServingProgram
  let directory: string
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'mqway-soak-'))
    // They all come from one address, and faster than anybody means well.
    writeFileSync(join(directory, 'mqway.yaml'), 'limits: { upgradesPerSecond: off }\n')
    gateway = await serving(['--http-port', '0', '--https-port', '0', '--mqtt-port', '0'], directory)
    gateway.child.stdout.resume()
  })
  afterAll(async () => {
    await gateway?.stop()
    rmSync(directory, { recursive: true, force: true })
  })

  const metrics = async (): Promise<Map<string, number>> => {
    const text = await (await fetch(`${gateway.url('http')}/metrics`)).text()
    const lines = text.split('\n').filter(line => line !== '' && !line.startsWith('#'))
    return new Map(
      lines.map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
    )
  }
  const residentBytes = (): number => {
    const status = readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024
  }

  it(
    'loses no message, keeps no connection, and does not grow',
    async () => {
      const endAt = performance.now() + seconds * 1000
      let sent = 0
      let received = 0
      const visit = async (visitor: number, turn: number): Promise<void> => {
        const url = [gateway.url('wss'), gateway.url('ws'), gateway.url('mqtt')][turn % 3] ?? ''
        const clean = turn % 5 !== 0
        const client = await mqtt.connectAsync(url, {
          clientId: `soak-${visitor}`,
          clean,
          rejectUnauthorized: false,
          reconnectPeriod: 0,
        })
        const wanted = 1 + (turn % 4)
        const all = new Promise<void>(resolve => {
          let left = wanted
          client.on('message', () => {
            received++
            if (--left === 0) resolve()
          })
        })
        const topic = `soak/${visitor}/${turn}`
        await client.subscribeAsync(topic, { qos: 1 })
        for (let i = 0; i < wanted; i++) {
          sent++
          await client.publishAsync(topic, Buffer.alloc(1 + ((turn * 7919) % 20_000)), { qos: turn % 2 === 0 ? 1 : 2 })
        }
        await all
        await client.unsubscribeAsync(topic)
        if (turn % 7 === 0) client.stream.destroy()
        else await client.endAsync()
      }
      let after = 0
      let early = 0
      const visitor = async (name: number): Promise<void> => {
        for (let turn = name; performance.now() < endAt; turn++) {
          await visit(name, turn)
          if (early === 0 && performance.now() > endAt - seconds * 500) early = residentBytes()
        }
      }
      await Promise.all(Array.from({ length: clientsAtATime }, (_, name) => visitor(name)))
      after = residentBytes()

      expect(received).toBe(sent)
      await eventually(async () => {
        const now = await metrics()
        const open = [...now].filter(([name, value]) => name.startsWith('mqway_connections{') && value !== 0)
        return open.length === 0
      })
      if (seconds >= longRun) expect(after - early).toBeLessThan(allowedGrowth)
    },
    seconds * 1000 + 60_000,
  )
})
