import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import mqtt from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { listenEverywhere, payloadsOf } from '../helpers/event-clients.js'
import { freePorts } from '../helpers/free-ports.js'
import { type ServingProgram, serving } from '../helpers/program.js'
import { eventually } from '../helpers/wait.js'

/** How long messages are published; `npm run soak` makes it ten minutes. */
const seconds = Number(process.env['SOAK_SECONDS'] ?? 3)
const interval = Math.min(20, seconds / 2)

it(
  `a gateway that is killed every ${interval} s, for ${seconds} s, delivers all that it has acknowledged, once and in order, on every transport`,
  async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mqway-kills-'))
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
    const limits = { publishesPerSecond: 'off', requestsPerSecond: 'off', upgradesPerSecond: 'off' }
    const input = { limits, embedded: { maxAnonymousSessions: 10 } }
    writeFileSync(join(directory, 'mqway.yaml'), JSON.stringify(input))
    const ports = await freePorts(3)
    const args = ['--http-port', '--https-port', '--mqtt-port'].flatMap((flag, index) => [flag, String(ports[index])])
    const start = async (): Promise<ServingProgram> => {
      const started = await serving(args, directory)
      started.child.stdout.resume()
      return started
    }
    let gateway = await start()
    onTestFinished(() => gateway.stop('SIGKILL'))
    const urls = { http: gateway.url('http'), https: gateway.url('https') }

    const readers = await listenEverywhere(() => urls, ['news/#'])
    const session = mqtt.connect(gateway.url('mqtt'), { clientId: 'reader', clean: false, reconnectPeriod: 50 })
    onTestFinished(() => void session.end(true))
    const overMqtt: string[] = []
    session
      .on('error', () => {})
      .on('message', (_topic, payload, { dup }) => {
        const text = String(payload)
        // QoS 1: a message may come again, marked as such.
        if (!dup || !overMqtt.includes(text)) overMqtt.push(text)
      })
    await new Promise<void>(resolve => session.once('connect', () => resolve()))
    await session.subscribeAsync('news/#', { qos: 1 })

    const acknowledged: string[] = []
    const endAt = performance.now() + seconds * 1000
    const publishing = (async () => {
      for (let attempt = 0; performance.now() < endAt; attempt++) {
        const payload = String(attempt)
        const isDone = await fetch(`${urls.http}/v1/publish?topic=news/a`, { method: 'POST', body: payload }).then(
          ({ status }) => status === 201,
          () => false,
        )
        if (isDone) acknowledged.push(payload)
        else await after(20)
      }
    })()
    let kills = 0
    while (performance.now() + interval * 1000 < endAt) {
      await after(interval * 1000)
      await gateway.stop('SIGKILL')
      kills++
      gateway = await start()
    }
    await publishing

    expect(kills).toBeGreaterThan(0)
    const wanted = new Set(acknowledged)
    const last = acknowledged.at(-1) ?? ''
    await eventually(() => [...readers.values()].every(reader => payloadsOf(reader).includes(last)))
    await eventually(() => overMqtt.includes(last))
    for (const [transport, reader] of readers) {
      const payloads = payloadsOf(reader)
      expect([transport, payloads.filter(payload => wanted.has(payload))]).toEqual([transport, acknowledged])
      expect([transport, payloads.length, reader.gaps]).toEqual([transport, new Set(payloads).size, []])
    }
    expect(overMqtt.filter(payload => wanted.has(payload))).toEqual(acknowledged)
    if (seconds > 10) process.stdout.write(`${kills} kills, ${acknowledged.length} acknowledged messages\n`)
  },
  seconds * 1000 + 90_000,
)
