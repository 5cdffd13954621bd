import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

let browser: Browser
const cleanups: (() => Promise<void>)[] = []

/** A site whose only page is the HTML below the heading “From your own page” of the README, as it stands there. */
const siteOfReadme = (): Promise<string> => siteOf('README.md', '### From your own page')

async function siteOf(file: string, heading: string): Promise<string> {
  const text = await readFile(file, 'utf8')
  const [, html] = /```html\n([\s\S]*?)```/.exec(text.slice(text.indexOf(`\n${heading}\n`))) ?? []
  const directory = await mkdtemp(join(tmpdir(), 'mqway-snippet-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  await cp('public/favicon.svg', join(directory, 'favicon.svg'))
  const icon = '<link rel="icon" href="/favicon.svg">'
  await writeFile(join(directory, 'index.html'), `<!doctype html><title>Mine</title>${icon}${html}`)
  return directory
}

/** Opens it; `heard` is what it wrote to the console. */
async function open(url: string): Promise<{ page: Page; heard: string[]; closed: () => number }> {
  const context = await browser.newContext({ ignoreHTTPSErrors: true })
  onTestFinished(() => context.close())
  const page = await context.newPage()
  const heard: string[] = []
  let closed = 0
  page.on('console', message => heard.push(message.text()))
  page.on('pageerror', error => heard.push(`error: ${error.message}`))
  page.on('websocket', socket => socket.on('close', () => closed++))
  await page.goto(url)
  return { page, heard, closed: () => closed }
}

const publish = async (gateway: TestGateway, text: string): Promise<void> => {
  const url = `${gateway.urls.http}/v1/publish?topic=%2Fnews%2Feurope%2Fsport`
  expect((await fetch(url, { method: 'POST', body: text })).status).toBe(201)
}

/** Publishes until it is heard: nobody outside knows when a page has subscribed. */
const hears = (gateway: TestGateway, heard: readonly string[], text: string): Promise<void> =>
  eventually(async () => {
    await publish(gateway, text)
    await new Promise(resolve => setTimeout(resolve, 20))
    return heard.includes(`/news/europe/sport ${text}`)
  })

describeWith(['chromium-headless-shell'], 'the README’s page with Paho', () => {
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it.each(['http', 'https'] as const)('gets messages where it came over %s', async scheme => {
    const gateway = await startTestGateway({ public: await siteOfReadme() })
    onTestFinished(() => gateway.close())
    const { heard } = await open(gateway.urls[scheme])
    await hears(gateway, heard, 'hello')
    expect(heard.filter(line => !line.startsWith('/news/'))).toEqual([])
  })

  it('works in two tabs at once, and none ends the other’s connection', async () => {
    const gateway = await startTestGateway({ public: await siteOfReadme() })
    onTestFinished(() => gateway.close())
    const tabs = [await open(gateway.urls.http), await open(gateway.urls.http)]
    for (const { heard } of tabs) await hears(gateway, heard, 'one')
    for (const { heard } of tabs) await hears(gateway, heard, 'two')
    expect(tabs.map(({ closed }) => closed())).toEqual([0, 0])
  })

  it('comes back soon after a restart', async () => {
    const site = await siteOfReadme()
    const first = await startTestGateway({ public: site })
    const { port } = new URL(first.urls.http)
    const { heard } = await open(first.urls.http)
    await hears(first, heard, 'before')
    await first.close()
    const second = await startTestGateway({ public: site, http: { port: Number(port) } })
    onTestFinished(() => second.close())
    const since = Date.now()
    await hears(second, heard, 'after')
    // One try each second or two, and not after Paho's 30 seconds.
    expect(Date.now() - since).toBeLessThan(10_000)
  })
})

describeWith(['chromium-headless-shell', 'mosquitto'], 'the page with MQTT.js of docs/clients.md', () => {
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups.splice(0)) await cleanup()
  })

  it.each([5, 4])('gets messages of MQTT %i with their properties', async protocolVersion => {
    const mosquitto = await startMosquitto()
    onTestFinished(() => mosquitto.stop())
    const site = await siteOf('docs/clients.md', '### MQTT.js')
    const gateway = await startTestGateway({ public: site, broker: `mqtt://127.0.0.1:${mosquitto.port}` })
    onTestFinished(() => gateway.close())
    const { heard } = await open(gateway.urls.http)
    const client = await mqtt.connectAsync(gateway.urls.mqtt, { protocolVersion: protocolVersion === 5 ? 5 : 4 })
    onTestFinished(() => void client.end(true))
    const properties = protocolVersion === 5 && { properties: { contentType: 'text/plain' } }
    await eventually(async () => {
      await client.publishAsync('/news/europe/sport', 'hello', { qos: 1, ...properties })
      return heard.some(line => line.startsWith('/news/europe/sport hello'))
    })
    const expected = protocolVersion === 5 ? 'text/plain' : 'undefined'
    expect(heard.find(line => line.startsWith('/news/'))).toBe(`/news/europe/sport hello ${expected}`)
    expect(heard.filter(line => !line.startsWith('/news/'))).toEqual([])
  })
})
