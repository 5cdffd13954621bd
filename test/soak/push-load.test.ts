import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { CountingStreams } from '../helpers/counting-streams.js'
import { type ServingProgram, serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

/** How long it takes; `npm run soak` makes it ten minutes. */
const seconds = Number(process.env['SOAK_SECONDS'] ?? 1)
const perSecond = 200
const subscribers = 1000
/** A run that is long enough for figures. */
const longRun = 30

describeWith('mosquitto_pub', `mosquitto_pub to ${subscribers} EventSources, ${perSecond}/s for ${seconds} s`, () => {
  let gateway: ServingProgram
  let directory: string
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'mqway-load-'))
    // They all come from one address.
    writeFileSync(join(directory, 'mqway.yaml'), 'limits: { connectionsPerAddress: 2000 }\n')
    gateway = await serving(['--http-port', '0', '--https-port', '0', '--mqtt-port', '0'], directory)
    gateway.child.stdout.resume()
    await eventually(async () => (await fetch(`${gateway.url('http')}/readyz`)).status === 200)
  })
  afterAll(async () => {
    await gateway?.stop()
    rmSync(directory, { recursive: true, force: true })
  })

  /** Seconds of a core that the gateway has used. */
  const cpuSeconds = (): number => {
    const fields = readFileSync(`/proc/${gateway.child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    return (Number(fields[11]) + Number(fields[12])) / 100
  }
  const residentMegabytes = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8'))?.[1]) / 1024

  it(
    'loses none, doubles none, and keeps their order at each of them',
    async () => {
      const streams = await CountingStreams.open(`${gateway.url('http')}/v1/events?topic=load/%23`, subscribers)
      onTestFinished(() => streams.close())
      const port = new URL(gateway.url('mqtt')).port
      const args = ['-h', '127.0.0.1', '-p', port, '-t', 'load/x', '-q', '1', '-l']
      const publisher = spawn('mosquitto_pub', args, { stdio: ['pipe', 'ignore', 'inherit'] })
      onTestFinished(() => void publisher.kill())
      const before = cpuSeconds()
      const ownBefore = process.cpuUsage()
      const begin = performance.now()
      const total = seconds * perSecond
      let sent = 0
      while (sent < total) {
        const due = Math.min(total, Math.ceil(((performance.now() - begin) / 1000) * perSecond))
        for (; sent < due; sent++) publisher.stdin.write(`${sent} ${Date.now()}\n`)
        await new Promise(resolve => setTimeout(resolve, 1000 / perSecond))
      }
      publisher.stdin.end()
      const [code] = await once(publisher, 'exit')
      expect(code).toBe(0)
      await streams.received(total)
      const elapsed = (performance.now() - begin) / 1000
      const cpu = cpuSeconds() - before
      const own = process.cpuUsage(ownBefore)
      const { tally } = streams
      const { received, ...rest } = tally
      expect({ ...rest, perStream: received / subscribers }).toMatchObject({
        disordered: 0,
        ended: 0,
        perStream: total,
      })
      if (seconds < longRun) return
      const figures = {
        ...{ seconds: elapsed, received, maxDelay: tally.maxDelay, p99Delay: tally.p99Delay },
        ...{ cpuPercent: (100 * cpu) / elapsed, cpuPerDelivery: (1e6 * cpu) / received, rss: residentMegabytes() },
        clientsCpuPercent: (own.user + own.system) / 1e4 / elapsed,
      }
      process.stderr.write(`${JSON.stringify(figures)}\n`)
    },
    seconds * 1000 + 60_000,
  )
})
