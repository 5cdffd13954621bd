import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const violations = `axe.run({ resultTypes: ['violations'] }).then(({ violations }) =>
  violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => id + ' ' + target + ': ' + failureSummary)))`

let browser: Browser
let people: People
const cleanups: (() => Promise<void>)[] = []

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  return gateway
}

/** Opens the dashboard, and collects what the browser complains about, such as its content policy. */
async function open(gateway: TestGateway, options: BrowserContextOptions = {}) {
  const context = await browser.newContext(options)
  onTestFinished(() => context.close())
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  const complaints: string[] = []
  page.on('pageerror', error => complaints.push(error.message))
  page.on('console', message => {
    if (message.type() === 'error' && !message.text().includes('Failed to load resource'))
      complaints.push(message.text())
  })
  page.on('request', request => {
    if (!request.url().startsWith(gateway.urls.http)) complaints.push(request.url())
  })
  await page.goto(`${gateway.urls.http}/dashboard`)
  return { page, complaints }
}

async function connect({ urls, mqttPort }: TestGateway, clientId: string, over: 'ws' | 'tcp' = 'tcp') {
  const url = over === 'tcp' ? `mqtt://127.0.0.1:${mqttPort}` : `${urls.http.replace('http', 'ws')}/mqtt`
  const options = { clientId, reconnectPeriod: 0, protocolVersion: 5, username: 'alice', password: 'right' } as const
  const client = await mqtt.connectAsync(url, options)
  client.on('error', () => {})
  onTestFinished(() => void client.end(true))
  return client
}

const publish = async ({ urls }: TestGateway, topic: string, body: string): Promise<void> => {
  const url = `${urls.http}/v1/publish?topic=${encodeURIComponent(topic)}`
  const authorization = `Basic ${Buffer.from('alice:right').toString('base64')}`
  expect((await fetch(url, { method: 'POST', body, headers: { authorization } })).status).toBe(201)
}

const row = (page: Page, name: string) => page.getByRole('grid').getByRole('row', { name })
const fact = (page: Page, name: string) => page.locator('.fact', { has: page.getByText(name, { exact: true }) })

describeWith(['chromium-headless-shell', 'openssl'], 'the dashboard', () => {
  beforeAll(async () => {
    people = await People.start()
    cleanups.push(() => people.stop())
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it('shows live what there is, also beside pages of one’s own, asks nobody else, and axe finds nothing wrong', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'mqway-site-'))
    onTestFinished(() => rm(directory, { recursive: true }))
    await writeFile(join(directory, 'index.html'), '<!doctype html><title>Mine</title>')
    const gateway = await start({ public: directory })
    const device = await connect(gateway, 'device-1', 'ws')
    await device.subscribeAsync('home/#')
    const { page, complaints } = await open(gateway)
    await page.locator('#state', { hasText: 'Ready' }).waitFor()
    await fact(page, 'Connections').getByText('1', { exact: true }).waitFor()
    await row(page, 'device-1').getByText('MQTT 5 · WebSocket').waitFor()
    await page.getByRole('button', { name: 'home/#' }).waitFor()

    await connect(gateway, 'device-2')
    await publish(gateway, 'home/kitchen', 'a <b>tasty</b> message')
    await page.getByRole('cell', { name: 'a <b>tasty</b> message' }).waitFor()
    await fact(page, 'Connections').getByText('2', { exact: true }).waitFor()
    await row(page, 'device-2').waitFor()
    await page.locator('.chart', { hasText: 'Connections' }).locator('.chart-line', { hasText: 'TCP 1' }).waitFor()
    expect(await page.locator('.chart canvas:visible').count()).toBe(6)

    await page.getByRole('button', { name: 'home/kitchen' }).click()
    await page.getByText('Watching', { exact: true }).waitFor()
    await publish(gateway, 'home/kitchen', 'for the tail')
    await page.getByLabel('Messages, newest first').getByText('for the tail').waitFor()

    const refused = await fetch(`${gateway.urls.http}/v1/publish?topic=x`, {
      ...{ method: 'POST', body: 'x', headers: { origin: 'http://other.example' } },
    })
    expect(refused.status).toBe(403)
    await page.getByRole('cell', { name: /Pages of this origin may not connect/ }).waitFor()

    await page.evaluate(axe)
    for (const [colorScheme, viewport] of [
      ['light', { width: 1280, height: 900 }],
      ['dark', { width: 360, height: 740 }],
    ] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      await page.setViewportSize(viewport)
      expect([colorScheme, await page.evaluate(violations)]).toEqual([colorScheme, []])
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(viewport.width)
    }
    await row(page, 'device-1').click()
    await page.getByRole('dialog').getByText('Topic filters').waitFor()
    expect(await page.evaluate(violations)).toEqual([])
    expect(complaints).toEqual([])
    await page.keyboard.press('Escape')

    await gateway.close()
    await page.locator('#state', { hasText: 'No connection: the figures are old' }).waitFor()
  })

  it('finds a client and disconnects it with the keyboard alone', async () => {
    const gateway = await start()
    const clients = await Promise.all(['pump-1', 'pump-2', 'valve-1'].map(name => connect(gateway, name)))
    const disconnected = new Promise<string | undefined>(resolve =>
      clients[1]?.on('disconnect', ({ properties }) => resolve(properties?.reasonString)),
    )
    const { page } = await open(gateway)
    await row(page, 'valve-1').waitFor()
    await page.getByLabel('Search client id, user or address').fill('pump')
    await page.getByText('3 connected · 2 found').waitFor()
    expect(await row(page, 'valve-1').count()).toBe(0)
    await page.getByLabel('Transport').press('Tab')
    expect(await page.evaluate('document.activeElement.getAttribute("role")')).toBe('grid')
    const second = await page.getByRole('grid').getByRole('row').nth(2).getByRole('gridcell').first().textContent()
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: second ?? '' }).waitFor()
    await page.keyboard.press('Escape')
    await page.getByLabel('Search client id, user or address').fill('pump-2')
    await page.getByText('3 connected · 1 found').waitFor()
    await page.getByLabel('Transport').press('Tab')
    await page.keyboard.press('Enter')
    await page.getByLabel('Reason, for the client and the log').fill('maintenance')
    await page.keyboard.press('Enter')
    expect(await disconnected).toBe('An administrator ended the connection: maintenance')
    await page.getByText('No client matches.').waitFor()
    await page.getByLabel('Search client id, user or address').fill('')
    await page.getByText('2 connected').waitFor()
  })

  it('has some rows of 5000 clients as elements, and no long task while one scrolls through all of them', async () => {
    const gateway = await start()
    const context = await browser.newContext()
    onTestFinished(() => context.close())
    const page = await context.newPage()
    const all = Array.from({ length: 5000 }, (_, index) => ({
      ...{ clientId: `client-${index}`, connection: String(index), address: '192.0.2.1', protocolVersion: 5 },
      ...{ transport: 'tcp', broker: 'embedded', since: new Date().toISOString(), bytesIn: index, bytesOut: 1 },
      ...{ bufferedBytes: 0, queue: { messages: 0, bytes: 0 }, subscriptions: 1 },
    }))
    await page.route('**/v1/clients?*', route => {
      const query = new URL(route.request().url()).searchParams
      const from = Number(query.get('cursor') ?? 0)
      const next = from + Number(query.get('limit'))
      const clients = all.slice(from, next)
      return route.fulfill({ json: { connected: 5000, clients, ...(next < 5000 && { next: String(next) }) } })
    })
    await page.goto(`${gateway.urls.http}/dashboard`)
    await row(page, 'client-0').waitFor()
    await page.evaluate(`
      window.longest = 0
      new PerformanceObserver(list => {
        for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration)
      }).observe({ type: 'longtask' })`)
    await page.getByRole('grid').focus()
    await page.keyboard.press('End')
    await row(page, 'client-4999').waitFor()
    const most = await page.evaluate<number>(`(async () => {
      const scroll = document.querySelector('.grid-scroll')
      let most = 0
      for (let step = 0; step <= 20; step++) {
        scroll.scrollTop = scroll.scrollHeight * (1 - step / 20)
        await new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))
        most = Math.max(most, document.querySelectorAll('.grid-canvas .grid-row').length)
      }
      return most
    })()`)
    expect(most).toBeGreaterThan(5)
    expect(most).toBeLessThan(60)
    await row(page, 'client-0').waitFor()
    expect(await page.getByRole('grid').getAttribute('aria-rowcount')).toBe('5001')
    // Some 40 ms on an idle machine; a busy one may pause any task.
    expect(await page.evaluate('window.longest')).toBeLessThan(1000)
  })

  it('asks for a login, refuses who is no administrator, and hides payloads that an administrator may not read', async () => {
    const rules = [
      { to: 'authenticated' as const, publish: ['#'] },
      { to: { user: 'alice' }, admin: true, subscribe: ['open/#'] },
    ]
    const access = { htpasswd: people.file('users'), webhook: people.access.webhook, rules }
    const gateway = await start({ access })
    const { page } = await open(gateway)
    await page.locator('#state', { hasText: 'Not logged in' }).waitFor()
    expect(await page.locator('main').isVisible()).toBe(false)
    const logIn = async (user: string, password: string): Promise<void> => {
      await page.getByLabel('User name').fill(user)
      await page.getByLabel('Password').fill(password)
      await page.getByLabel('Password').press('Enter')
    }
    await logIn('carol', 'hook')
    await page.getByText('Only administrators may see this').waitFor()
    expect(await page.locator('main').isVisible()).toBe(false)
    await logIn('alice', 'right')
    await page.locator('#state', { hasText: 'Ready' }).waitFor()
    await publish(gateway, 'open/a', 'for everybody')
    await publish(gateway, 'secret/a', 'for nobody')
    await page
      .getByRole('row', { name: /^open\/a/ })
      .getByText('for everybody')
      .waitFor()
    await page
      .getByRole('row', { name: /^secret\/a/ })
      .getByText('not yours to read')
      .waitFor()
    expect(await page.content()).not.toContain('for nobody')
    // All listeners need the right to read all topics.
    await page.getByText('You may not read all topics').waitFor()
    await page.getByLabel('Topic filter', { exact: true }).fill('secret/#')
    await page.getByRole('button', { name: 'Watch', exact: true }).click()
    await page.locator('#tail-objection', { hasText: /secret/ }).waitFor()
  })

  it('says what is off in front of a broker without push', async () => {
    const gateway = await start({ push: 'off' })
    await connect(gateway, 'device-1')
    const { page, complaints } = await open(gateway)
    await fact(page, 'Push').getByText('off', { exact: true }).waitFor()
    await row(page, 'device-1').waitFor()
    expect(await page.getByRole('heading', { name: 'Topics' }).isVisible()).toBe(false)
    expect(complaints).toEqual([])
  })
})
