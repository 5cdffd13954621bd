import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { recordingLog } from '../server/rig.js'

let browser: Browser
let people: People
const cleanups: (() => Promise<void>)[] = []

async function start(config: ConfigInput = {}): Promise<TestGateway & ReturnType<typeof recordingLog>> {
  const log = recordingLog()
  const gateway = await startTestGateway({ access: people.access, ...config }, log.log)
  onTestFinished(() => gateway.close())
  return { ...gateway, ...log }
}

/** A page in a profile of its own, with the cookies that a login has left. */
async function openPage(url: string, cookies: { name: string; value: string }[] = []): Promise<Page> {
  const context = await browser.newContext({ ignoreHTTPSErrors: true })
  onTestFinished(() => context.close())
  await context.addCookies(
    cookies.map(cookie => ({ ...cookie, domain: 'localhost', path: '/', secure: true, sameSite: 'None' as const })),
  )
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  await page.goto(url)
  return page
}

/**
 * Somebody else's pages, on another port of the same host: for a browser they are another origin, and yet the same site, so
 * that it sends every cookie along.
 */
async function startOtherSite(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-site-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  await writeFile(join(directory, 'index.html'), '<!doctype html><title>Other site</title>')
  const site = await startTestGateway({ public: directory })
  onTestFinished(() => site.close())
  return site.urls.https
}

/** What a page gets to know of a WebSocket: that it opened, and what was agreed on; or how it ended. */
function opensSocket(page: Page, url: string, subprotocols: readonly string[] = ['mqtt']): Promise<string> {
  return page.evaluate(
    ([url, ...offered]) =>
      new Promise<string>(resolve => {
        const socket = new WebSocket(url ?? '', offered)
        socket.onopen = () => resolve(`open: ${socket.protocol}`)
        socket.onclose = ({ code }) => resolve(`closed: ${code}`)
      }),
    [url, ...subprotocols],
  )
}

/** A page that opens no WebSocket by itself, and so ends none that it takes for its own. */
const silent = (gateway: TestGateway): string => `${gateway.urls.https}/healthz`
const wss = (gateway: TestGateway, path = '/mqtt'): string => `${gateway.urls.https.replace('https', 'wss')}${path}`
const required: ConfigInput['tunnels'] = [{ path: '/mqtt', requireIdentity: true }]

describeWith(['chromium-headless-shell', 'mosquitto', 'openssl'], 'in a browser', () => {
  beforeAll(async () => {
    people = await People.start()
    cleanups.push(() => people.stop())
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it('the page connects with user and password, has its own topics, and is told what it may not have', async () => {
    const rules = [{ to: 'authenticated', publish: ['own/%u/#'], subscribe: ['own/%u/#'] }] as const
    const gateway = await start({
      access: {
        ...people.access,
        rules: rules.map(rule => ({ ...rule, publish: [...rule.publish], subscribe: [...rule.subscribe] })),
      },
    })
    const page = await openPage(gateway.urls.https)
    // Without a name one does not get in, and the page says so.
    await page.getByText('Connection refused').waitFor()
    const logIn = async (password: string): Promise<void> => {
      await page.getByRole('button', { name: 'Settings' }).click()
      await page.getByLabel('User name').fill('alice')
      await page.getByLabel('Password').fill(password)
      await page.getByLabel('Password').press('Enter')
    }
    await logIn('wrong')
    await page.getByText('The user name or the password is wrong.').waitFor()
    await logIn('right')
    await page.getByText('Connected: MQTT 5 over wss').waitFor()

    const subscription = (filter: string) => page.getByLabel('Subscriptions').locator('li', { hasText: filter })
    // What the page asks for by itself is not among what alice may read.
    await subscription('/news/+/sport').getByText('refused').waitFor()
    await page.getByLabel('Topic filter').fill('own/alice/#')
    await page.getByRole('button', { name: 'Subscribe', exact: true }).click()
    await subscription('own/alice/#').and(page.locator('[data-state="granted"]')).waitFor()
    await page.getByLabel('Topic', { exact: true }).fill('own/alice/note')
    await page.getByLabel('Payload').fill('to myself')
    await page.getByRole('button', { name: 'Publish', exact: true }).click()
    await page.getByLabel('Messages, newest first').getByText('to myself', { exact: true }).waitFor()
  })

  it('a page with a cookie connects over wss, to the built-in broker and to another one', async () => {
    const mosquitto = await startMosquitto()
    onTestFinished(() => mosquitto.stop())
    const gateway = await start({
      tunnels: [
        { path: '/mqtt', requireIdentity: true },
        { path: '/upstream', requireIdentity: true, broker: `mqtt://127.0.0.1:${mosquitto.port}` },
      ],
    })
    const page = await openPage(silent(gateway), [{ name: 'session', value: await people.token() }])
    expect(await opensSocket(page, wss(gateway))).toBe('open: mqtt')
    expect(await opensSocket(page, wss(gateway, '/upstream'))).toBe('open: mqtt')
    // The page itself: who it is the cookie says, CONNECT has no name.
    await page.goto(gateway.urls.https)
    await page.getByText('Connected: MQTT 5 over wss').waitFor()
    const stranger = await openPage(silent(gateway))
    expect(await opensSocket(stranger, wss(gateway))).toBe('closed: 1006')
    expect(await opensSocket(stranger, wss(gateway, '/upstream'))).toBe('closed: 1006')
  })

  it('a page of another origin cannot use the cookie of a visitor (cross-site WebSocket hijacking)', async () => {
    const site = await startOtherSite()
    const cookies = [{ name: 'session', value: await people.token() }]
    const gateway = await start({ tunnels: required })
    // Somebody who is logged in here goes there.
    const page = await openPage(gateway.urls.https, cookies)
    await page.getByText('Connected: MQTT 5 over wss').waitFor()
    await page.goto(site)
    expect(await opensSocket(page, wss(gateway))).toBe('closed: 1006')
    expect(await gateway.line(/^Pages of this origin may not connect/)).toMatchObject({
      reason: 'origin-refused',
      err: expect.stringContaining(`Origin: ${site}`),
    })
    // The browser did send the cookie: where that origin is allowed, it gets in.
    const open = await start({ tunnels: [{ path: '/mqtt', requireIdentity: true, origins: [site] }] })
    await page.goto(silent(open))
    await page.goto(site)
    expect(await opensSocket(page, wss(open))).toBe('open: mqtt')
  })

  it('a page of another origin gets no ticket with what the browser would add', async () => {
    const site = await startOtherSite()
    const gateway = await start({ tunnels: [{ path: '/mqtt', requireIdentity: true, origins: ['same-origin', site] }] })
    const ask = (page: Page, token?: string): Promise<string> =>
      page.evaluate(
        async ([url, token]) => {
          try {
            const headers = token === '' ? {} : { Authorization: `Bearer ${token}` }
            const response = await fetch(`${url}/v1/tickets`, {
              method: 'POST',
              headers,
              credentials: token === '' ? 'include' : 'same-origin',
            })
            return response.ok ? ((await response.json()) as { ticket: string }).ticket : String(response.status)
          } catch (error) {
            return String(error)
          }
        },
        [gateway.urls.https, token ?? ''],
      )
    const page = await openPage(site, [{ name: 'session', value: await people.token() }])
    expect(await ask(page)).toContain('Failed to fetch')
    const ticket = await ask(page, await people.token())
    expect(ticket).toMatch(/^[\w-]{43}$/)
    expect(await opensSocket(page, `${wss(gateway)}?ticket=${ticket}`)).toBe('open: mqtt')
    expect(await opensSocket(page, `${wss(gateway)}?ticket=${ticket}`)).toBe('closed: 1006')
  })

  it('a page presents a token as subprotocol, which is not what is agreed on', async () => {
    const gateway = await start({ tunnels: required })
    const page = await openPage(silent(gateway))
    const token = await people.token()
    expect(await opensSocket(page, wss(gateway), ['mqtt', `bearer.${token}`])).toBe('open: mqtt')
    expect(await opensSocket(page, wss(gateway), ['mqtt', `bearer.${token}x`])).toBe('closed: 1006')
  })
})
