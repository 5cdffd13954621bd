import { pathToFileURL } from 'node:url'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
// @ts-expect-error: an example, in plain JavaScript
import { startResponder } from '../../examples/rrr/responder.js'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const fileOf = (path: string): string => pathToFileURL(new URL(`../../${path}`, import.meta.url).pathname).href

describeWith(['chromium-headless-shell', 'mosquitto_pub'], 'RRR’s pages in Chromium', () => {
  let browser: Browser
  let close = async (): Promise<void> => {}
  beforeAll(async () => {
    browser = await launchChromium(end => {
      close = end
    })
  })
  afterAll(() => close())

  const start = async (config: ConfigInput): Promise<TestGateway> => {
    const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
    onTestFinished(() => gateway.close())
    return gateway
  }

  /** Fails the test in the end if anything went wrong in the page. */
  const open = async (url: string): Promise<Page> => {
    const context = await browser.newContext({ viewport: { width: 900, height: 640 } })
    const page = await context.newPage()
    const faults: string[] = []
    page.on('pageerror', error => faults.push(error.message))
    page.on('console', line => {
      if (line.type() === 'error') faults.push(line.text())
    })
    onTestFinished(async () => {
      await context.close()
      expect(faults).toEqual([])
    })
    await page.goto(url)
    return page
  }

  const publish = async (gateway: TestGateway, topic: string, text: string): Promise<void> => {
    const args = ['-p', String(gateway.mqttPort), '-q', '1', '-t', topic, '-m', text]
    expect(await run('mosquitto_pub', args).exited()).toBe(0)
  }

  it.each([
    { from: 'a file', origins: ['same-origin', 'null'], wait: '1s' },
    { from: 'the gateway', origins: ['same-origin'], wait: '200ms' },
  ])(
    'push opened from $from ($origins, $wait): connects again and again, and shows what mosquitto_pub says',
    async ({ from, origins, wait }) => {
      const gateway = await start({ push: { origins }, compat: { rrr: { wait } } })
      const page = await open(
        from === 'a file'
          ? `${fileOf('public/rrr-push.html')}?url=${gateway.urls.http}/rrr/`
          : `${gateway.urls.http}/rrr-push.html`,
      )
      const connections = async (): Promise<number> => Number(await page.locator('#connections').textContent())
      const first = await connections()
      // The page connects again after the wait, and not before.
      const began = Date.now()
      await eventually(async () => (await connections()) >= first + 2)
      if (wait === '1s') expect(Date.now() - began).toBeGreaterThan(900)
      expect(await page.locator('#state').textContent()).toBe('Connected')
      const texts = ['hello', '"quotes" \\ \u{1f600} </script>', 'line\nbreak']
      for (const text of texts) await publish(gateway, 'push/1', text)
      await publish(gateway, 'push/2', 'for somebody else')
      const shown = page.locator('#messages .content')
      await eventually(async () => (await shown.count()) >= texts.length)
      expect(await shown.allTextContents()).toEqual([...texts].reverse())

      await page.locator('#handle').fill('2')
      await page.getByRole('button', { name: 'Listen' }).click()
      await shown.getByText('for somebody else').waitFor()
    },
  )

  it('the one for CouchDB’s changes shows each, once and in order, and is linked from the first page', async () => {
    const gateway = await start({ compat: { rrr: { wait: '200ms' } } })
    await publish(gateway, 'notifications', 'before')
    const page = await open(gateway.urls.http)
    await page.getByRole('link', { name: 'CouchDB’s changes' }).click()
    await page.locator('#state').getByText('Connected').waitFor()
    const texts = ['hello', '"quotes" \\ \u{1f600} </script>']
    for (const msg of texts) await publish(gateway, 'notifications/europe', JSON.stringify({ msg }))
    await publish(gateway, 'notifications', '{"a":1}')
    const shown = page.locator('#messages .content')
    await eventually(async () => (await shown.count()) > texts.length)
    const [newest, ...others] = await shown.allTextContents()
    expect(JSON.parse(newest ?? '')).toMatchObject({ a: 1 })
    expect(others).toEqual([...texts].reverse())
    expect(await page.locator('#sequence').textContent()).toMatch(/^[1-9]/)

    await page.getByRole('link', { name: 'RRR', exact: true }).click()
    await page.locator('#state').getByText('Connected').waitFor()
  })

  it('push says so where the gateway does not let it in', async () => {
    const gateway = await start({})
    const context = await browser.newContext()
    onTestFinished(() => context.close())
    const page = await context.newPage()
    await page.goto(`${fileOf('public/rrr-push.html')}?url=${gateway.urls.http}/rrr/`)
    await page.locator('#state').getByText('push.origins').waitFor()
  })

  it('the one for WebSockets is answered by an MQTT client until it has been silent', async () => {
    const gateway = await start({ push: { origins: ['null'] } })
    const responder = await startResponder({ url: gateway.urls.mqtt, every: 100, silence: 1000 })
    onTestFinished(() => responder.close())
    const url = `${gateway.urls.http.replace('http', 'ws')}/rrr/example`
    const page = await open(`${fileOf('examples/rrr/websocket.html')}?url=${url}&alive=1500`)
    const shown = page.locator('#messages li')
    const msg = (text: string): string => `{"msg":"Hello! Last message received was '${text}'"}`
    await shown.getByText(msg('connected')).first().waitFor()
    await shown.getByText(msg('alive')).first().waitFor()
    expect(await page.locator('#state').textContent()).toContain('Connected')
    await page.getByLabel('Message', { exact: true }).fill('"me" too')
    await page.getByRole('button', { name: 'Send' }).click()
    await shown
      .getByText(JSON.stringify({ msg: `Hello! Last message received was '"me" too'` }))
      .first()
      .waitFor()
    await page.close()
    await eventually(() => responder.speakers === 0)
  })
})
