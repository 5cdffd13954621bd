import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway } from '../helpers/gateway.js'
import { type RunningProgram, run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { type Pere, pereAt, startPere } from './pere-rig.js'

const directory = fileURLToPath(new URL('../../examples/pere', import.meta.url))
const channel = 'CHANNEL_1'

function start(script: string, ...args: string[]): RunningProgram {
  const program = run(process.execPath, [`${directory}/${script}`, ...args])
  onTestFinished(() => program.stop())
  return program
}

const devicesOf = async (pere: Pere): Promise<string[]> => Object.keys(await pere.admin<object>(`devices/${channel}`))

describe('the examples for PERE', () => {
  it('print what PERE’s own print, and the status of each event comes back', async () => {
    const pere = await startPere()
    const { host } = new URL(pere.url)
    const subscribers = [start('subscriber.js', pere.url), start('subscriber.js', pere.url, channel)]
    for (const subscriber of subscribers) {
      expect(await subscriber.line()).toMatch(
        new RegExp(`^LISTEN \\(device: H0039\\d{9}\\), channel: CHANNEL_1, server: ${host}$`),
      )
      expect(await subscriber.line()).toBe('')
    }
    await eventually(async () => (await devicesOf(pere)).length === 2)
    const publisher = start('publisher.js', pere.url, channel, '0.01')
    const [, device] =
      /^PUBLISH \(device: (P0039\d{9})\), channel: CHANNEL_1, server: \S+$/.exec(await publisher.line()) ?? []
    expect(await publisher.line()).toBe('')
    for (let id = 1; id <= 3; id++) {
      const [, event = ''] = /^PUSH EVT> event: (.*)$/.exec(await publisher.line()) ?? []
      expect(event).toMatch(
        new RegExp(
          `^{"channel":"CHANNEL_1","device":"${device}","id":${id},"time":"[-\\d]{10}T[:\\d]{8}Z","data":"[a-z0-9]{16,63}"}$`,
        ),
      )
      for (const subscriber of subscribers) expect(await subscriber.line()).toBe(`RX EVT> ${event}`)
    }
    await publisher.stop()
    const said = { op: 'feedback', at: expect.any(String), 'Last-Event-Id': expect.any(String) }
    await eventually(async () => {
      const devices = Object.values(await pere.admin<Record<string, { op: string }>>(`devices/${channel}`))
      return devices.length === 2 && devices.every(({ op }) => op === 'feedback')
    })
    expect(Object.values(await pere.admin<object>(`devices/${channel}`))).toEqual([said, said])
    for (const program of [publisher, ...subscribers]) expect(program.errors()).toBe('')
  })

  it('say why a channel is not open to them', async () => {
    const pere = await startPere()
    const subscriber = start('subscriber.js', pere.url, '#')
    expect(await subscriber.exited()).toBe(1)
    expect(subscriber.errors()).toMatch(/^LISTEN> 400: .*without the wildcards/)
    const publisher = start('publisher.js', pere.url, '#', '100')
    for (let lines = 0; lines < 2; lines++) await publisher.line()
    await eventually(() => publisher.errors() !== '')
    expect(publisher.errors()).toMatch(/^PUSH EVT> failed: 400: .*without the wildcards/)
  })

  it('are there under the names that their README’s commands have', () => {
    const text = readFileSync(`${directory}/README.md`, 'utf8')
    const named = [...text.matchAll(/node examples\/pere\/(\S+)|8080\/(\w+\.html)/g)].map(
      ([, script, page]) => script ?? page,
    )
    expect(new Set(named)).toEqual(new Set(['subscriber.js', 'publisher.js', 'subscriber.html']))
    for (const name of named) expect(existsSync(`${directory}/${name}`)).toBe(true)
  })
})

describeWith('chromium-headless-shell', 'the page for PERE in Chromium', () => {
  let browser: Browser
  const cleanups: (() => Promise<void>)[] = []
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it('shows each event once, as it was published, also after the gateway was away, and gives feedback', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-pere-'))
    onTestFinished(() => rm(data, { recursive: true, force: true }))
    const config = { data, public: directory, https: { port: 'off' as const } }
    const first = await startTestGateway(config)
    const pere = pereAt(first)
    const page = await (await browser.newContext()).newPage()
    const faults: unknown[] = []
    page.on('pageerror', error => faults.push(error))
    await page.goto(`${pere.gateway.urls.http}/subscriber.html`)
    await page.getByText('Connected', { exact: true }).waitFor()
    const [device = ''] = await devicesOf(pere)
    expect(device).toMatch(/^W0039\d{9}$/)
    const { host } = new URL(pere.url)
    expect(await page.locator('#listen').textContent()).toBe(
      `LISTEN (device: ${device}), channel: CHANNEL_1, server: ${host}`,
    )
    const bodies = ['{"data":"\\"</script><script>alert(1)</script>\\\\ 👩‍👩‍👧"}', '{\n  "data":\n\n  2\n}']
    for (const body of bodies) await pere.push(channel, body)
    const lines = page.getByLabel('Events').locator('li')
    await lines.nth(1).waitFor()
    expect(await lines.allTextContents()).toEqual(bodies.map(body => `RX EVT> ${body}`))
    await page.locator('li[data-feedback="sent"]').nth(1).waitFor()
    const [, { id }] = await pere.admin<[unknown, { id: string }]>(`events/${channel}`)
    expect(await pere.admin(`devices/${channel}`)).toMatchObject({ [device]: { op: 'feedback', 'Last-Event-Id': id } })
    await first.close()
    await page.getByText('Connecting…', { exact: true }).waitFor()
    const next = await startPere({ ...config, http: { port: Number(new URL(first.urls.http).port) } })
    await next.push(channel, 'while it was away, or right after')
    await lines.nth(2).waitFor()
    expect((await lines.allTextContents()).slice(2)).toEqual(['RX EVT> while it was away, or right after'])
    expect(faults).toEqual([])
  })
})
