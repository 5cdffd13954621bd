import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway } from '../helpers/gateway.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
/** long-poll.html has nothing that sse.html and index.html do not have. */
const pages = ['', 'sse.html', 'socket.html', 'couchdb.html', 'rrr-push.html']
/** One of each way to log in. */
const pagesWithLogin = ['', 'sse.html', 'rrr-push.html']
const [wide, narrow] = [
  { width: 1280, height: 900 },
  { width: 360, height: 740 },
]
const all = [
  { colorScheme: 'light', viewport: wide },
  { colorScheme: 'dark', viewport: wide },
  { colorScheme: 'light', viewport: narrow },
  { colorScheme: 'dark', viewport: narrow },
] as const
/** Each color scheme and each width once. */
const two: readonly (typeof all)[number][] = [all[0], all[3]]

/** One line for each element that breaks a rule of axe, with what axe says about it. */
const violations = `axe.run({ resultTypes: ['violations'] }).then(({ violations }) =>
  violations.flatMap(({ id, nodes }) =>
    nodes.map(({ target, failureSummary }) => id + ' ' + target + ': ' + failureSummary.replace(/\\s+/g, ' '))))`

let browser: Browser
let people: People
const cleanups: (() => Promise<void>)[] = []

async function violationsOf(page: Page, looks: typeof two = two): Promise<string[]> {
  const found: string[] = []
  for (const { colorScheme, viewport } of looks) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    await page.setViewportSize(viewport)
    const lines = await page.evaluate<string[]>(violations)
    found.push(...lines.map(line => `${colorScheme}, ${viewport.width}: ${line}`))
  }
  return found
}

describeWith(['chromium-headless-shell', 'mosquitto', 'openssl'], 'axe finds nothing wrong with', () => {
  beforeAll(async () => {
    people = await People.start()
    cleanups.push(() => people.stop())
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  async function open(url: string): Promise<Page> {
    const context = await browser.newContext()
    onTestFinished(() => context.close())
    const page = await context.newPage()
    page.setDefaultTimeout(15_000)
    await page.goto(url)
    await page.evaluate(axe)
    return page
  }

  it.each(pages)('/%s with messages, everything unfolded, and then without its gateway', async name => {
    const gateway = await startTestGateway({ https: { port: 'off' } })
    onTestFinished(() => gateway.close())
    const page = await open(`${gateway.urls.http}/${name}`)
    await page.locator('#state', { hasText: 'Connected' }).waitFor()
    for (const topic of ['/news/europe/sport', 'push/1', 'notifications/a']) {
      for (const body of [Uint8Array.of(0xff), '{"msg":"one"}']) {
        const url = `${gateway.urls.http}/v1/publish?topic=${topic}&retain=true`
        expect((await fetch(url, { method: 'POST', body })).status).toBe(201)
      }
    }
    await page.getByLabel('Messages, newest first').getByText('one').first().waitFor()
    await page.evaluate(`for (const each of document.querySelectorAll('details')) each.open = true`)
    expect(await violationsOf(page, all)).toEqual([])
    await gateway.close()
    await page.locator('#state').getByText('Connected').waitFor({ state: 'hidden' })
    expect(await violationsOf(page)).toEqual([])
  })

  it('messages of MQTT 5 with their properties, and the fields for them', async () => {
    const mosquitto = await startMosquitto()
    onTestFinished(() => mosquitto.stop())
    const gateway = await startTestGateway({ https: { port: 'off' }, broker: `mqtt://127.0.0.1:${mosquitto.port}` })
    onTestFinished(() => gateway.close())
    const page = await open(gateway.urls.http)
    await page.getByLabel('Subscriptions').locator('[data-state="granted"]').waitFor()
    await page.getByText('Properties of MQTT 5').first().click()
    await page.getByLabel('Content type').fill('text/plain')
    await page.getByLabel('Expires after').fill('60')
    await page.getByLabel('User properties').fill(`unit: °C\nlong: ${'x'.repeat(200)}`)
    await page.getByRole('button', { name: 'Publish', exact: true }).click()
    await page.locator('.message-properties').waitFor()
    expect(await violationsOf(page, all)).toEqual([])
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(narrow.width)
    await page.getByLabel('Expires after').fill('soon')
    await page.getByRole('button', { name: 'Publish', exact: true }).click()
    await page.getByText('The expiry is a whole number').waitFor()
    expect(await violationsOf(page)).toEqual([])
  })

  it.each(pagesWithLogin)('/%s where one has to log in', async name => {
    const rules = [{ to: 'authenticated' as const, publish: ['#'], subscribe: ['#'] }]
    const access = { htpasswd: people.file('users'), rules }
    const tunnels = [{ path: '/mqtt', requireIdentity: true }]
    const gateway = await startTestGateway({ https: { port: 'off' }, access, tunnels })
    onTestFinished(() => gateway.close())
    const page = await open(`${gateway.urls.http}/${name}`)
    await page.getByText('Authentication required').first().waitFor()
    await page.getByLabel('User name').fill('alice')
    await page.getByLabel('Password').fill('wrong')
    await page.getByLabel('Password').press('Enter')
    await page.getByText('credentials are not accepted').first().waitFor()
    expect(await violationsOf(page)).toEqual([])
  })
})
