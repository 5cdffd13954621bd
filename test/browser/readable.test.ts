import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

/*
 * What pages show of texts that others wrote, and whether a person can hit, read and name what is in them.
 */

let browser: Browser
const cleanups: (() => Promise<void>)[] = []
const pages = ['', 'sse.html', 'long-poll.html', 'socket.html', 'couchdb.html', 'rrr-push.html', 'dashboard']
const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true } satisfies BrowserContextOptions

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  return gateway
}

async function open(url: string, options: BrowserContextOptions = {}): Promise<Page> {
  const context = await browser.newContext(options)
  onTestFinished(() => context.close())
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  await page.goto(url)
  return page
}

/** What of a page is too small to hit, has no name, or is too wide. */
const measure = `(() => {
  const shown = each => each.checkVisibility() && !each.closest('.visually-hidden, .skip')
  const small = [...document.querySelectorAll('button, select, summary, input, textarea, nav a')]
    .filter(shown)
    .flatMap(each => {
      const target = each.closest('label.check, .segments label') ?? each
      const { width, height } = target.getBoundingClientRect()
      return width >= 24 && height >= 24 ? [] : [each.outerHTML.slice(0, 80) + ': ' + width + '×' + height]
    })
  const nameless = [...document.querySelectorAll('input, select, textarea')].flatMap(each => {
    const text = [...each.labels].map(label => label.textContent).join('') + (each.getAttribute('aria-label') ?? '')
    return text.trim() === '' ? [each.id] : []
  })
  const keys = [...document.querySelectorAll('.keys-hint')].filter(shown).length
  return { small, nameless, keys, sideways: document.documentElement.scrollWidth > innerWidth }
})()`

const publish = async ({ urls }: TestGateway, topic: string, body: string | Uint8Array<ArrayBuffer>): Promise<void> => {
  const url = `${urls.http}/v1/publish?topic=${encodeURIComponent(topic)}`
  expect((await fetch(url, { method: 'POST', body })).status).toBe(201)
}

describeWith(['chromium-headless-shell'], 'a page', () => {
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it.each(['', 'sse.html'])('/%s keeps what turns the direction of a text inside of that text', async name => {
    const gateway = await start()
    const page = await open(`${gateway.urls.http}/${name}`)
    await page.locator('#state', { hasText: 'Connected' }).waitFor()
    const [topic, payload] = ['/news/\u202Eeporue/sport', '\u202Edlrow olleh']
    await eventually(async () => {
      await publish(gateway, topic, payload)
      return (await page.locator('.message').count()) > 0
    })
    const isolated = await page.evaluate<boolean[]>(`
      [...document.querySelectorAll('.message .topic, .message .payload')].map(each =>
        ['isolate', 'plaintext', 'isolate-override'].includes(getComputedStyle(each).unicodeBidi))`)
    expect(isolated.length).toBeGreaterThan(1)
    expect(new Set(isolated)).toEqual(new Set([true]))
  })

  it.each(pages)('/%s has targets of 24 pixels, names for its fields, and no keys on a phone', async name => {
    const gateway = await start()
    const page = await open(`${gateway.urls.http}/${name}`, phone)
    await page.locator('#state', { hasText: /Connected|Ready/ }).waitFor()
    const found = await page.evaluate(measure)
    expect(found).toEqual({ small: [], nameless: [], keys: 0, sideways: false })
  })

  it('of RRR says which messages are in base64', async () => {
    const gateway = await start()
    const page = await open(`${gateway.urls.http}/rrr-push.html`)
    await page.locator('#state', { hasText: 'Connected' }).waitFor()
    await publish(gateway, 'push/1', Uint8Array.of(0xff, 0xfe))
    const row = page.getByLabel('Messages, newest first').locator('li', { hasText: '//4=' })
    await row.getByText('base64', { exact: true }).waitFor()
  })

  it('does not call a message published that the rules may have dropped', async () => {
    const rules = [{ to: 'anonymous' as const, subscribe: ['#'], publish: ['open/#'] }]
    const gateway = await start({ access: { rules } })
    const page = await open(gateway.urls.http)
    await page.getByLabel('Subscriptions').locator('[data-state="granted"]').waitFor()
    const outcome = page.locator('#publish-outcome')
    await page.getByRole('button', { name: 'Publish', exact: true }).click()
    await outcome.getByText(/^The broker refused this message: .* \(reason code 0x87\)\.$/).waitFor()
    expect(await outcome.textContent()).not.toContain('Published')
    // At QoS 0, not even MQTT 5 reports it.
    await page.locator('input[name="publish-qos"][value="0"]').check()
    await page.getByRole('button', { name: 'Publish', exact: true }).click()
    await outcome.getByText('The broker may not permit it, which MQTT cannot report').waitFor()
    expect(await outcome.textContent()).not.toContain('Published')
  })

  it('does not say that the device is offline where the gateway is on it', async () => {
    const gateway = await start()
    const page = await open(gateway.urls.http)
    await page.locator('#state', { hasText: 'Connected' }).waitFor()
    await page.evaluate(`Object.defineProperty(navigator, 'onLine', { get: () => false })`)
    await gateway.close()
    await page.locator('#reason', { hasText: 'Nothing answers at this address' }).waitFor()
  })
})
