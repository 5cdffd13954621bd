import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { listenEverywhere, payloadsOf } from '../helpers/event-clients.js'
import { type ServingProgram, serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const library = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1'

/** A gateway whose wall clock can be set; its monotonic clock is that of the machine. */
async function startWithClock(): Promise<{
  restart(): Promise<void>
  gateway(): ServingProgram
  shift(hours: number): void
}> {
  const directory = mkdtempSync(join(tmpdir(), 'mqway-clock-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'clock')
  const shift = (hours: number): void => writeFileSync(file, `${hours < 0 ? '' : '+'}${hours * 3600}`)
  shift(0)
  const clock = { FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1' }
  const start = async (): Promise<ServingProgram> => {
    const args = ['--http-port', '0', '--https-port', '0', '--mqtt-port', '0']
    const started = await serving(args, directory, { LD_PRELOAD: library, ...clock })
    started.child.stdout.resume()
    return started
  }
  let running = await start()
  onTestFinished(() => running.stop('SIGKILL'))
  return {
    shift,
    gateway: () => running,
    restart: async () => {
      await running.stop()
      running = await start()
    },
  }
}

describeWith('libfaketime', 'a gateway whose clock jumps by an hour, forwards and backwards', () => {
  it('keeps connections, delivers each event once and in order, and ends what is due, also over a restart', async () => {
    const { gateway, shift, restart } = await startWithClock()
    const urls = () => ({ http: gateway().url('http'), https: gateway().url('https') })
    const readers = await listenEverywhere(urls, ['news/#'])
    const client = await mqtt.connectAsync(gateway().url('mqtt'), { reconnectPeriod: 0, keepalive: 2 })
    const ids: string[] = []
    const published: string[] = []
    const publish = async (payload: string): Promise<void> => {
      const response = await fetch(`${urls().http}/v1/publish?topic=news/a`, { method: 'POST', body: payload })
      expect([payload, response.status]).toEqual([payload, 201])
      ids.push(JSON.parse(await response.text()).id)
      published.push(payload)
    }
    const received = () =>
      eventually(() => [...readers.values()].every(reader => payloadsOf(reader).length === published.length))
    await publish('before')
    for (const hours of [1, 0, -1]) {
      shift(hours)
      for (const payload of ['first', 'second']) await publish(`${hours} h: ${payload}`)
      await received()
      const started = performance.now()
      const poll = await fetch(`${urls().http}/v1/poll?topic=quiet&cursor=${ids.at(-1)}&timeout=1`)
      expect(poll.status).toBe(200)
      expect(performance.now() - started).toBeGreaterThan(900)
    }
    expect(client.connected).toBe(true)
    await client.publishAsync('news/a', 'from the client', { qos: 1 })
    published.push('from the client')
    await received()
    expect([...readers.values()].map(({ returns }) => returns)).toEqual([...readers].map(() => 0))
    client.end(true)

    shift(-2)
    await restart()
    await publish('after the restart')
    await received()
    for (const reader of readers.values()) {
      expect(payloadsOf(reader)).toEqual(published)
      expect(reader.gaps).toEqual([])
    }
    const numbers = ids.map(id => Number.parseInt(id.slice(id.lastIndexOf('-') + 1), 36))
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b))
  }, 60_000)
})
