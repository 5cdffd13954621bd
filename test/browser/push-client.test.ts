import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Gap } from '../../public/mqway.js'
import { launchChromium } from '../helpers/chromium.js'
import type { Meddling } from '../helpers/meddling-proxy.js'
import { describeWith } from '../helpers/requires.js'
import { openPage, type RestartableGateway, startRestartable } from './push-rig.js'

let browser: Browser
const cleanups: (() => Promise<void>)[] = []

/** What the page writes down. */
interface Heard {
  readonly payloads: string[]
  readonly gaps: Gap[]
  readonly transports: string[]
}

interface ListeningPage {
  readonly page: Page
  heard(): Promise<Heard>
  /** Resolves when it is connected in this way. */
  open(transport: string): Promise<void>
  /** Resolves when this holds in the page. */
  until(condition: string): Promise<void>
  /** Resolves when so many events have come. */
  has(count: number): Promise<void>
}

/** A page of the gateway's that has nothing but the client. */
async function listen(gateway: RestartableGateway, options: object = {}): Promise<ListeningPage> {
  const page = await openPage(browser, `${gateway.proxy.url}/styles/base.css`)
  const given = { topics: ['news/#'], retry: { min: 20, max: 300 }, ...options }
  await page.evaluate(`import('/mqway.js').then(({ connect }) => {
    const heard = window.heard = { payloads: [], gaps: [], transports: [] }
    window.client = connect({
      ...${JSON.stringify(given)},
      onEvent: ({ payload }) => heard.payloads.push(payload),
      onGap: gap => heard.gaps.push(gap),
      onState: state => { if (state.phase === 'open') heard.transports.push(state.transport) },
    })
  })`)
  // Not by the browser's driver, which would evaluate a string: the pages' policy does not allow that.
  const wait = (condition: string): Promise<void> =>
    page.evaluate(`(async () => { while (!(${condition})) await new Promise(resolve => setTimeout(resolve, 20)) })()`)
  return {
    page,
    heard: () => page.evaluate('heard'),
    until: wait,
    open: transport => wait(`client.state.transport === '${transport}' && client.cursor !== undefined`),
    has: count => wait(`heard.payloads.length >= ${count}`),
  }
}

const numbers = (count: number): string[] => Array.from({ length: count }, (_, index) => String(index + 1))

describeWith('chromium-headless-shell', 'the client in a browser', () => {
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  const proxies: readonly { what: string; meddling: Meddling; transport: string }[] = [
    { what: 'lets everything through', meddling: {}, transport: 'socket' },
    { what: 'kills WebSockets', meddling: { sockets: 'refused' }, transport: 'sse' },
    { what: 'cuts WebSockets', meddling: { sockets: 'cut' }, transport: 'sse' },
    {
      what: 'kills WebSockets and keeps event streams back',
      meddling: { sockets: 'refused', streams: 'buffered' },
      transport: 'poll',
    },
  ]

  /** Those that lead to different transports. */
  const ways = proxies.filter(({ what }) => what !== 'cuts WebSockets')
  const all = ['socket', 'sse', 'poll']

  it.each(proxies)('hears everything once and in order behind a proxy that $what, over $transport', async proxy => {
    const gateway = await startRestartable(proxy.meddling)
    // Longer than a busy machine takes for a first byte.
    const listening = await listen(gateway, { connectTimeout: 2500 })
    await listening.open(proxy.transport)
    for (const number of numbers(10)) await gateway.publish('news/eu', number)
    await listening.has(10)
    // Started anew, with what was published before the page is back.
    await gateway.restart()
    for (const number of numbers(20).slice(10)) await gateway.publish('news/eu', number)
    await listening.has(20)
    const { payloads, gaps, transports } = await listening.heard()
    expect(payloads).toEqual(numbers(20))
    expect(gaps).toEqual([])
    expect(transports[0]).toBe(proxy.transport)
    // While the gateway was away, it may have gone on to the next; never to one that does not get through.
    const through = all.slice(all.indexOf(proxy.transport))
    expect(through).toEqual(expect.arrayContaining([...new Set(transports)]))
  })

  it.each(ways)('is accounted for when connections are cut at random, over $transport', async proxy => {
    const gateway = await startRestartable(proxy.meddling)
    // Longer than a busy machine takes for a first byte.
    const listening = await listen(gateway, { connectTimeout: 2500 })
    await listening.open(proxy.transport)
    const before = gateway.proxy.requests.length
    const end = Date.now() + 1000
    let cuts = 0
    let published = 0
    const cutting = setInterval(() => {
      if (Math.random() < 0.4) return
      gateway.proxy.cut()
      cuts++
    }, 150)
    const returns = (): number => gateway.proxy.requests.length - before
    while (Date.now() < end || cuts < 3 || returns() < 3) {
      await gateway.publish('news/eu', String(++published))
      if (published === 30) await gateway.restart()
    }
    clearInterval(cutting)
    await gateway.publish('news/eu', String(++published))
    await listening.has(published)
    const { payloads, gaps } = await listening.heard()
    expect(payloads).toEqual(numbers(published))
    expect(gaps).toEqual([])
    // It was really cut off, and came back.
    expect(cuts).toBeGreaterThan(2)
    expect(returns()).toBeGreaterThan(2)
  })

  it('remembers in the tab what works, and begins with it on the next page', async () => {
    const gateway = await startRestartable({ sockets: 'refused' })
    const { page, open } = await listen(gateway)
    await open('sse')
    const before = gateway.proxy.requests.length
    await page.reload()
    const first = await page.evaluate<string>(`import('/mqway.js').then(({ connect }) => new Promise(resolve => {
      connect({ topics: ['news/#'], onEvent() {}, onState: ({ phase, transport }) => phase === 'connecting' && resolve(transport) })
    }))`)
    expect(first).toBe('sse')
    expect(gateway.proxy.requests.slice(before)).not.toContain('upgrade /v1/socket')
  })

  it('comes back at once when the network does', async () => {
    const gateway = await startRestartable()
    const listening = await listen(gateway, { retry: { min: 600_000, max: 600_000 } })
    await listening.open('socket')
    await gateway.publish('news/eu', '1')
    await listening.has(1)
    gateway.proxy.cut()
    await listening.until(`client.state.phase === 'waiting'`)
    await gateway.publish('news/eu', '2')
    await listening.page.context().setOffline(true)
    await listening.page.context().setOffline(false)
    await listening.has(2)
    expect((await listening.heard()).payloads).toEqual(numbers(2))
  })

  it('is iterated over, leaves nothing out between two iterations, and publishes and acknowledges on the way', async () => {
    const gateway = await startRestartable()
    const page = await openPage(browser, `${gateway.proxy.url}/styles/base.css`)
    const result = await page.evaluate<{ first: string[]; second: string[]; status: string }>(`(async () => {
      const { connect } = await import('/mqway.js')
      const client = connect({ topics: ['news/#'], last: 0 })
      const first = [], second = []
      let open
      const iterator = client[Symbol.asyncIterator]()
      const next = iterator.next()
      while (client.cursor === undefined) await new Promise(resolve => setTimeout(resolve, 20))
      for (const payload of ['a', 'b', 'c', 'd']) await client.publish('news/eu', payload)
      first.push((await next).value.payload, (await iterator.next()).value.payload)
      await iterator.return()
      await client.publish('news/eu', 'e')
      let status
      for await (const { id, payload } of client) {
        second.push(payload)
        if (payload !== 'e') continue
        status = (await client.receipt(id, 'processed')).status
        break
      }
      client.close()
      return { first, second, status }
    })()`)
    expect(result).toEqual({ first: ['a', 'b'], second: ['c', 'd', 'e'], status: 'processed' })
  })
})
