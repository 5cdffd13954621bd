import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

let browser: Browser
const cleanups: (() => Promise<void>)[] = []

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  return gateway
}

/** One browser, whose tabs share what they can. @param script runs first in each of its pages */
async function openBrowser(script = ''): Promise<BrowserContext> {
  const context = await browser.newContext()
  onTestFinished(() => context.close())
  await context.addInitScript(script)
  return context
}

async function openTab(context: BrowserContext, url: string): Promise<Page> {
  const page = await context.newPage()
  // Without Web Locks on a busy machine, several tabs may take the lead at once, and wait for each other's connections.
  page.setDefaultTimeout(40_000)
  await page.goto(url)
  return page
}

const connected = (page: Page) => page.locator('#state', { hasText: 'Connected over' }).waitFor()
const rows = (page: Page) => page.getByLabel('Messages, newest first').locator('li .payload')
const payloads = async (page: Page) => (await rows(page).allTextContents()).reverse()

async function publish({ urls }: TestGateway, topic: string, payload: string): Promise<void> {
  const url = `${urls.http}/v1/publish?topic=${encodeURIComponent(topic)}`
  expect((await fetch(url, { method: 'POST', body: payload })).status).toBe(201)
}

/** Event streams that are open, as the gateway counts them. */
async function streams({ urls }: TestGateway): Promise<number> {
  const answer = await fetch(`${urls.http}/v1/presence?topic=${encodeURIComponent('/news/+/sport')}`)
  const { listeners }: { listeners: { connections: number }[] } = JSON.parse(await answer.text())
  return listeners.reduce((sum, { connections }) => sum + connections, 0)
}

const topic = '/news/europe/sport'
const withoutLocks = `Object.defineProperty(Navigator.prototype, 'locks', { get: () => undefined })`

describeWith(['chromium-headless-shell'], 'tabs of one browser over plain HTTP', () => {
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it.each([
    { title: 'with Web Locks', script: '' },
    { title: 'without, as beyond localhost', script: withoutLocks },
  ])(
    'share one event stream, so that there may be more than six: $title',
    async ({ script }) => {
      const gateway = await start()
      const context = await openBrowser(script)
      const tabs: Page[] = []
      // Over HTTP/1.1 a browser opens six connections to one host.
      for (let count = 0; count < 7; count++) {
        const tab = await openTab(context, `${gateway.urls.http}/sse.html`)
        await connected(tab)
        tabs.push(tab)
      }
      expect(await streams(gateway)).toBe(1)
      await publish(gateway, topic, 'one')
      for (const tab of tabs) await rows(tab).getByText('one', { exact: true }).waitFor()

      // The one that has the stream goes; another one takes its place, and nothing is lost.
      await tabs.shift()?.close()
      for (const payload of ['two', 'three']) await publish(gateway, topic, payload)
      for (const tab of tabs) await rows(tab).getByText('three', { exact: true }).waitFor()
      for (const tab of tabs) expect(await payloads(tab)).toEqual(['one', 'two', 'three'])
      await eventually(async () => (await streams(gateway)) === 1)
    },
    120_000,
  )

  it('have each its own topics, and its own state of them', async () => {
    const gateway = await start()
    await fetch(`${gateway.urls.http}/v1/publish?topic=weather/here&retain=true`, { method: 'POST', body: 'sunny' })
    const context = await openBrowser()
    const [first, second] = [
      await openTab(context, `${gateway.urls.http}/long-poll.html`),
      await openTab(context, `${gateway.urls.http}/long-poll.html`),
    ]
    for (const tab of [first, second]) await connected(tab)
    await second.getByLabel('Topic filter').fill('weather/#')
    await second.getByRole('button', { name: 'Listen', exact: true }).click()
    await rows(second).getByText('sunny', { exact: true }).waitFor()
    await publish(gateway, 'weather/here', 'rain')
    await publish(gateway, topic, 'for both')
    for (const tab of [first, second]) await rows(tab).getByText('for both', { exact: true }).waitFor()
    expect(await payloads(second)).toEqual(['sunny', 'rain', 'for both'])
    expect(await payloads(first)).toEqual(['for both'])
  })

  it('do not lose theirs where one asks for what is refused', async () => {
    const gateway = await start({ access: { rules: [{ to: 'anonymous', subscribe: ['/news/#', 'receipts/#'] }] } })
    const context = await openBrowser()
    const [first, second] = [
      await openTab(context, `${gateway.urls.http}/sse.html`),
      await openTab(context, `${gateway.urls.http}/sse.html`),
    ]
    for (const tab of [first, second]) await connected(tab)
    await second.getByLabel('Topic filter').fill('secret')
    await second.getByRole('button', { name: 'Listen', exact: true }).click()
    await second.locator('#reason', { hasText: 'This topic is not open to you: secret' }).waitFor()
    await connected(first)
    await second.getByRole('button', { name: 'Stop listening to secret' }).click()
    for (const tab of [first, second]) await connected(tab)
    expect(await streams(gateway)).toBe(1)
  })
})
