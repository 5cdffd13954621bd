import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { basic, bearer, secondsFromNow } from '../helpers/identities.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

/*
 * Who gets what over push in a real browser: with a ticket, with a cookie, from a page of another origin.
 */

let browser: Browser
let people: People
const cleanups: (() => Promise<void>)[] = []

/** Pages with nothing in them. */
async function emptySite(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-site-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  await writeFile(join(directory, 'index.html'), '<!doctype html><title>Site</title>')
  return directory
}

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ access: people.access, public: await emptySite(), ...config })
  onTestFinished(() => gateway.close())
  await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
  return gateway
}

/** A page in a profile of its own, with the cookies that a login has left. */
async function openPage(url: string, session?: string): Promise<Page> {
  const context = await browser.newContext({ ignoreHTTPSErrors: true })
  onTestFinished(() => context.close())
  if (session !== undefined) {
    const cookie = { name: 'session', value: session, domain: 'localhost', path: '/' }
    await context.addCookies([{ ...cookie, secure: true, sameSite: 'None' }])
  }
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  await page.goto(url)
  return page
}

const publish = async (gateway: TestGateway, topic: string, body: string): Promise<void> => {
  const headers = bearer(await people.token()).headers ?? {}
  const response = await fetch(`${gateway.urls.http}/v1/publish?topic=${topic}`, { method: 'POST', body, headers })
  expect(response.status).toBe(201)
}

/** What a page gets to know of an EventSource: that it opened, or that it will not. */
const opensSource = (page: Page, url: string): Promise<string> =>
  page.evaluate(
    url =>
      new Promise<string>(resolve => {
        const source = new EventSource(url, { withCredentials: true })
        source.onopen = () => {
          source.close()
          resolve('open')
        }
        source.onerror = () => {
          source.close()
          resolve('refused')
        }
      }),
    url,
  )

const opensSocket = (page: Page, url: string): Promise<string> =>
  page.evaluate(
    url =>
      new Promise<string>(resolve => {
        const socket = new WebSocket(url)
        socket.onopen = () => resolve('open')
        socket.onclose = () => resolve('refused')
      }),
    url.replace('http', 'ws'),
  )

/** The status, or what the browser says instead. */
const fetches = (page: Page, url: string, init: RequestInit = {}): Promise<string> =>
  page.evaluate(
    async ([url, init]) => {
      try {
        return String((await fetch(url, { credentials: 'include', ...init })).status)
      } catch (error) {
        return String(error)
      }
    },
    [url, init] as const,
  )

/** A page with an `EventSource` and tickets; what it got is in `got`, `gaps` and `connections`. */
const pageThatComesBack = `
  Object.assign(globalThis, { got: [], gaps: 0, connections: 0 })
  let cursor = ''
  const listen = async () => {
    const headers = { Authorization: 'Bearer ' + (await newToken()) }
    const { ticket } = await (await fetch('/v1/tickets', { method: 'POST', headers })).json()
    const source = new EventSource('/v1/events?topic=a&ticket=' + ticket + '&cursor=' + cursor)
    connections++
    source.onmessage = ({ data, lastEventId }) => {
      got.push(JSON.parse(data).payload)
      cursor = lastEventId
    }
    source.addEventListener('gap', () => gaps++)
    // Its ticket is used: by itself it would not come back.
    source.addEventListener('end', () => {
      source.close()
      listen()
    })
  }
  listen()`

/** The members of a JSON answer. */
async function jsonOf<Members>(response: Response): Promise<Members> {
  return JSON.parse(await response.text())
}

interface Listeners {
  readonly listeners: readonly { readonly connections: number }[]
}

interface Events {
  readonly events: readonly { readonly topic: string }[]
}

describeWith(['chromium-headless-shell', 'openssl'], 'push in a browser', () => {
  beforeAll(async () => {
    people = await People.start()
    cleanups.push(() => people.stop())
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it('an EventSource with a ticket goes on with a new one and its cursor when who it is has expired', async () => {
    const gateway = await start()
    const page = await openPage(gateway.urls.https)
    // Tokens of two seconds, as often as the page has to come back.
    await page.exposeFunction('newToken', () => people.token({ exp: secondsFromNow(2) }))
    await page.evaluate(pageThatComesBack)
    const state = () =>
      page.evaluate(() => {
        const { got, gaps, connections } = globalThis as unknown as { got: string[]; gaps: number; connections: number }
        return { got, gaps, connections }
      })
    const published: string[] = []
    // The first has to be there, so that there is a place to come back to.
    await eventually(async () => {
      const headers = basic('alice:right').headers ?? {}
      const answer = await fetch(`${gateway.urls.http}/v1/presence?topic=a`, { headers })
      return (await jsonOf<Listeners>(answer)).listeners.length > 0
    })
    for (let number = 0; (await state()).connections < 3 || number < 50; number++) {
      published.push(String(number))
      await publish(gateway, 'a', String(number))
    }
    await eventually(async () => (await state()).got.length >= published.length)
    expect(await state()).toMatchObject({ got: published, gaps: 0 })
  })

  it('ten EventSources of one page are live over HTTP/2; over HTTP/1.1 there are six', async () => {
    const gateway = await start({ access: undefined })
    const count = async (url: string): Promise<() => Promise<number[]>> => {
      const page = await openPage(url)
      await page.evaluate(() => {
        const scope = globalThis as unknown as { got: number[] }
        scope.got = Array.from({ length: 10 }, () => 0)
        for (let index = 0; index < 10; index++) {
          const source = new EventSource(`/v1/events?topic=b&device=d${index}`)
          source.onmessage = () => {
            scope.got[index] = (scope.got[index] ?? 0) + 1
          }
        }
      })
      return () => page.evaluate(() => (globalThis as unknown as { got: number[] }).got)
    }
    const listening = async (): Promise<number> => {
      const answer = await fetch(`${gateway.urls.http}/v1/presence?topic=b`)
      return (await jsonOf<Listeners>(answer)).listeners.filter(({ connections }) => connections > 0).length
    }
    const overHttp2 = await count(gateway.urls.https)
    await eventually(async () => (await listening()) === 10)
    await fetch(`${gateway.urls.http}/v1/publish?topic=b`, { method: 'POST', body: 'one' })
    await eventually(async () => (await overHttp2()).every(got => got === 1))
    expect(await overHttp2()).toEqual(Array(10).fill(1))
    for (const context of browser.contexts()) await context.close()
    await eventually(async () => (await listening()) === 0)

    const overHttp1 = await count(gateway.urls.http)
    await eventually(async () => (await listening()) === 6)
    for (let round = 0; round < 5; round++) {
      await fetch(`${gateway.urls.http}/v1/publish?topic=b`, { method: 'POST', body: 'two' })
    }
    await eventually(async () => (await overHttp1()).filter(got => got === 5).length === 6)
    expect((await overHttp1()).filter(got => got === 0)).toHaveLength(4)
    expect(await listening()).toBe(6)
  })

  it('a page with a cookie of its own origin uses all of it', async () => {
    const gateway = await start()
    const page = await openPage(gateway.urls.https, await people.token())
    expect(await opensSource(page, '/v1/events?topic=a')).toBe('open')
    expect(await opensSocket(page, `${gateway.urls.https}/v1/socket`)).toBe('open')
    expect(await fetches(page, '/v1/poll?topic=a&timeout=0')).toBe('200')
    expect(await fetches(page, '/v1/publish?topic=a', { method: 'POST', body: 'x' })).toBe('201')
    const stranger = await openPage(gateway.urls.https)
    expect(await opensSource(stranger, '/v1/events?topic=a')).toBe('refused')
    expect(await opensSocket(stranger, `${gateway.urls.https}/v1/socket`)).toBe('refused')
    expect(await fetches(stranger, '/v1/poll?topic=a&timeout=0')).toBe('401')
  })

  it('a page of another origin can do nothing with the cookie of its visitor', async () => {
    const gateway = await start()
    const other = await start()
    const page = await openPage(gateway.urls.https, await people.token())
    expect(await opensSource(page, `${gateway.urls.https}/v1/events?topic=a`)).toBe('open')
    // For a browser another port is another origin, and yet the same site, so that it sends every cookie along.
    await page.goto(other.urls.https)
    const to = gateway.urls.https
    expect(await opensSource(page, `${to}/v1/events?topic=a`)).toBe('refused')
    expect(await opensSocket(page, `${to}/v1/socket`)).toBe('refused')
    expect(await fetches(page, `${to}/v1/poll?topic=a&timeout=0`)).toContain('Failed to fetch')
    expect(await fetches(page, `${to}/v1/publish?topic=a`, { method: 'POST', body: 'x' })).toContain('Failed to fetch')
    const blind = { method: 'POST', body: 'x', mode: 'no-cors' } as const
    await fetches(page, `${to}/v1/publish?topic=a`, blind)
    // A form goes where it says, cookies and all.
    const posted = page.waitForResponse(response => response.url().startsWith(`${to}/v1/publish`))
    await page.evaluate(`
      const action = ${JSON.stringify(`${to}/v1/publish?topic=a`)}
      const form = Object.assign(document.createElement('form'), { action, method: 'post', enctype: 'text/plain' })
      document.body.append(form)
      form.submit()`)
    expect((await posted).status()).toBe(403)
    const headers = bearer(await people.token()).headers ?? {}
    const events = await fetch(`${gateway.urls.http}/v1/poll?topic=%23&last=100&timeout=0`, { headers })
    expect((await jsonOf<Events>(events)).events.filter(({ topic }) => topic === 'a')).toEqual([])
  })

  it('JSONP is for any page, and gives it what those may read who are nobody', async () => {
    const rules = [
      { to: 'anonymous' as const, subscribe: ['public'] },
      { to: 'authenticated' as const, subscribe: ['own'], publish: ['own', 'public'] },
    ]
    const gateway = await start({ access: { ...people.access, webhook: undefined, rules }, push: { jsonp: true } })
    const other = await start()
    await publish(gateway, 'public', 'for all')
    await publish(gateway, 'own', 'secret')
    // Somebody who is logged in there comes here.
    const page = await openPage(other.urls.https, await people.token())
    const loads = (topic: string): Promise<unknown> =>
      page.evaluate(`new Promise(resolve => {
        globalThis.take = resolve
        const src = ${JSON.stringify(`${gateway.urls.https}/v1/poll?topic=${topic}&last=10&timeout=0&callback=take`)}
        const script = Object.assign(document.createElement('script'), { src })
        script.onerror = () => resolve('refused')
        document.body.append(script)
      })`)
    expect(await loads('public')).toMatchObject({ events: [{ topic: 'public', payload: 'for all' }] })
    expect(await loads('own')).toBe('refused')
    expect(await loads('public&timeout=x')).toBe('refused')
  })
})
