import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway } from '../helpers/gateway.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

let browser: Browser
const cleanups: (() => Promise<void>)[] = []

/**
 * Counts the elements that come into the page between two frames, and the rows that are highlighted at once; the most of
 * each is in `mostPerFrame` and `mostHighlighted`.
 */
const countWork = `
  globalThis.mostPerFrame = 0
  globalThis.mostHighlighted = 0
  let made = 0
  new MutationObserver(records => {
    for (const { addedNodes } of records)
      for (const node of addedNodes) made += 1 + (node.querySelectorAll?.('*').length ?? 0)
  }).observe(document, { childList: true, subtree: true })
  const next = () => {
    mostPerFrame = Math.max(mostPerFrame, made)
    const highlighted = document.getAnimations().filter(({ animationName }) => animationName === 'arrive')
    mostHighlighted = Math.max(mostHighlighted, highlighted.length)
    made = 0
    requestAnimationFrame(next)
  }
  addEventListener('DOMContentLoaded', () => requestAnimationFrame(() => requestAnimationFrame(() => {
    made = 0
    next()
  })))`

async function publishBatch(url: string, count: number, from: number): Promise<void> {
  const messages = Array.from({ length: count }, (_, index) => ({
    topic: '/news/europe/sport',
    payload: JSON.stringify({ number: from + index }),
    qos: 1,
  }))
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(`${url}/v1/publish`, { method: 'POST', body: JSON.stringify({ messages }), headers })
  expect(answer.status).toBe(201)
}

const mostPerFrame = (page: Page): Promise<number> => page.evaluate<number>('mostPerFrame')

describeWith(['chromium-headless-shell'], 'the page for event streams, when thousands of messages come', () => {
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it('makes a bounded number of rows in each frame, sends its receipts together, and counts everything', async () => {
    const gateway = await startTestGateway({ https: { port: 'off' }, push: { receiptMessagesPerSecond: 10_000 } })
    onTestFinished(() => gateway.close())
    const page = await browser.newPage()
    onTestFinished(() => page.close())
    page.setDefaultTimeout(30_000)
    await page.addInitScript(countWork)
    let requests = 0
    page.on('request', request => {
      if (request.method() === 'POST' && request.url().endsWith('/v1/receipts')) requests++
    })
    await page.goto(`${gateway.urls.http}/sse.html`)
    await page.locator('#state', { hasText: 'Connected' }).waitFor()
    await publishBatch(gateway.urls.http, 1, -1)
    // Not `waitForFunction`, which evaluates text in the page where it must wait, against its CSP.
    await eventually(() => page.evaluate('mostHighlighted > 0'))
    const [total, batch] = [1500, 500]
    for (let sent = 0; sent < total; sent += batch) await publishBatch(gateway.urls.http, batch, sent)
    await page.locator('#log-count', { hasText: '1,501 received' }).waitFor()
    await page.locator('#acks-count', { hasText: '1,501 so far' }).waitFor()
    // The newest is drawn last, so everything that was to be drawn is.
    await page.locator('#messages li').first().getByText('{"number":1499}', { exact: true }).waitFor()
    await page.locator('#acks li').first().getByText('{"number":1499}', { exact: true }).waitFor()
    expect(await page.locator('#messages > li').count()).toBe(500)
    expect(await page.locator('#acks > li').count()).toBe(100)
    expect(await mostPerFrame(page)).toBeLessThan(1000)
    // Each frame computes the style of all of them: with hundreds, none is in time.
    expect(await page.evaluate<number>('mostHighlighted')).toBeLessThan(100)
    expect(requests).toBeLessThan(total / 5)
  }, 60_000)

  it('draws what a filter leaves in portions, too', async () => {
    const gateway = await startTestGateway({ https: { port: 'off' } })
    onTestFinished(() => gateway.close())
    const page = await browser.newPage()
    onTestFinished(() => page.close())
    page.setDefaultTimeout(30_000)
    await page.addInitScript(countWork)
    await page.goto(`${gateway.urls.http}/long-poll.html`)
    await page.locator('#state', { hasText: 'Connected' }).waitFor()
    await publishBatch(gateway.urls.http, 500, 0)
    await page.locator('#messages li').first().getByText('{"number":499}', { exact: true }).waitFor()
    await page.locator('#log-filter').fill('number":4')
    await page.getByText('111 shown').waitFor()
    await page.locator('#log-filter').fill('')
    await page.locator('#messages > li').nth(499).waitFor({ state: 'attached' })
    const numbers = await page.locator('#messages .payload').allTextContents()
    expect(numbers).toEqual(Array.from({ length: 500 }, (_, index) => `{"number":${499 - index}}`))
    await page.getByRole('button', { name: 'Pause' }).click()
    await publishBatch(gateway.urls.http, 100, 500)
    await page.getByText('100 since the pause').waitFor()
    await page.getByRole('button', { name: 'Resume' }).click()
    await page.locator('#messages li').first().getByText('{"number":599}', { exact: true }).waitFor()
    expect(await mostPerFrame(page)).toBeLessThan(1000)
  })
})
