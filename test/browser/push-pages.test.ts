import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { launchChromium } from '../helpers/chromium.js'
import { run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'
import { openPage, startRestartable } from './push-rig.js'

let browser: Browser
const cleanups: (() => Promise<void>)[] = []

const topic = '/news/europe/sport'
const state = (page: Page) => page.locator('#state')
const rows = (page: Page) => page.getByLabel('Messages, newest first').locator('li')
const payloads = async (page: Page) => (await rows(page).locator('.payload').allTextContents()).reverse()
const connected = (page: Page) => state(page).getByText('Connected over').waitFor()
const shown = (page: Page, payload: string) => rows(page).getByText(payload, { exact: true }).waitFor()

describeWith(['chromium-headless-shell', 'mosquitto_pub'], 'a person with a page for events over HTTP', () => {
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it.each([
    { link: 'Event stream', headline: 'Connected over an event stream' },
    { link: 'Long-poll', headline: 'Connected over long-polling' },
    { link: 'Socket', headline: 'Connected over a WebSocket' },
  ])('finds the page “$link”, and has each line once when the gateway was started anew', async ({ link, headline }) => {
    const gateway = await startRestartable()
    const page = await openPage(browser, gateway.proxy.url)
    await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: link }).click()
    await state(page).getByText(headline, { exact: true }).waitFor()
    expect(await page.title()).toContain('connected')
    await page.getByLabel('Payload').last().fill('from the page')
    await page.getByRole('button', { name: 'Publish', exact: true }).click()
    await page.locator('#publish-outcome', { hasText: 'Published, acknowledged' }).waitFor()
    for (const payload of ['one', 'two']) await gateway.publish(topic, payload)
    await shown(page, 'two')

    await gateway.restart(async () => {
      await state(page).getByText('Connection lost').waitFor()
      await page.getByText('Next try in').waitFor()
    })
    // Whether it was back before this or comes back after it.
    await gateway.publish(topic, 'three')
    await connected(page)
    await gateway.publish(topic, 'four')
    await shown(page, 'four')
    expect(await payloads(page)).toEqual(['from the page', 'one', 'two', 'three', 'four'])
    expect(await page.locator('#loss').isHidden()).toBe(true)
  })

  it('listens to more topics and to fewer', async () => {
    const gateway = await startRestartable()
    const page = await openPage(browser, `${gateway.proxy.url}/long-poll.html`)
    await connected(page)
    await page.getByLabel('Topic filter').fill('#/wrong')
    await page.getByRole('button', { name: 'Listen', exact: true }).click()
    await page.getByText('# stands for everything below').waitFor()
    await page.getByLabel('Topic filter').fill('weather/#')
    await page.getByRole('button', { name: 'Listen', exact: true }).click()
    await page.getByRole('button', { name: 'Stop listening to /news/+/sport' }).click()
    await connected(page)
    await gateway.publish(topic, 'not this')
    await gateway.publish('weather/here', 'rain')
    await shown(page, 'rain')
    expect(await payloads(page)).toEqual(['rain'])
  })

  it('sees who acknowledged what, and who did not', async () => {
    const gateway = await startRestartable()
    const page = await openPage(browser, `${gateway.proxy.url}/sse.html`)
    const other = await openPage(browser, `${gateway.proxy.url}/sse.html`)
    for (const each of [page, other]) await connected(each)
    const devices = await Promise.all([page, other].map(each => each.locator('#client-id').textContent()))
    await page.getByLabel('Payload').fill('who has this?')
    await page.getByRole('button', { name: 'Publish', exact: true }).click()
    const acks = page.getByLabel('Receipts by event')
    for (const device of devices) {
      await acks
        .locator('.ack-line', { hasText: device ?? 'none' })
        .getByText('received')
        .waitFor()
    }
    await rows(other).getByRole('button', { name: 'Processed' }).click()
    await acks
      .locator('.ack-line', { hasText: devices[1] ?? 'none' })
      .getByText('✓ processed')
      .waitFor()
    const answer = await fetch(
      `${gateway.current.urls.http}/v1/publish?topic=${topic}&receiptFrom=ghost&receiptWithin=100ms`,
      { method: 'POST', body: 'is anybody there?' },
    )
    expect(answer.status).toBe(201)
    await acks.locator('.ack-line', { hasText: 'ghost' }).getByText('no receipt in time').waitFor()
    // The newest event is the first.
    expect(await acks.locator('.ack-text').allTextContents()).toEqual(['is anybody there?', 'who has this?'])
  })

  it('sends from a socket, and is answered alone, with the command that the page shows', async () => {
    const gateway = await startRestartable()
    const page = await openPage(browser, `${gateway.proxy.url}/socket.html`)
    const other = await openPage(browser, `${gateway.proxy.url}/socket.html`)
    for (const each of [page, other]) await connected(each)
    const own = await page.locator('#own-in').textContent()
    const backEnd = run('mosquitto_sub', ['-p', String(gateway.current.mqttPort), '-t', 'socket/+/in', '-F', '%t %p'])
    cleanups.push(() => backEnd.stop())
    // A subscriber that is not there yet hears nothing: send until it does.
    const heard = backEnd.line()
    const send = page.getByRole('button', { name: 'Send' })
    let first: string | undefined
    void heard.then(line => {
      first = line
    })
    while (first === undefined) {
      await send.click()
      await page.locator('#send-outcome', { hasText: 'Sent' }).waitFor()
    }
    expect(first).toBe(`${own} hello from a browser`)
    const command = (await page.locator('#answer-command code').textContent()) ?? ''
    const answer = run('sh', ['-c', `${command} -p ${gateway.current.mqttPort}`])
    expect(await answer.exited(), answer.errors()).toBe(0)
    const row = rows(page).filter({ hasText: 'an answer for this browser alone' })
    await row.getByText('for this browser', { exact: true }).waitFor()
    await gateway.publish(topic, 'for everybody')
    await shown(other, 'for everybody')
    expect(await payloads(other)).toEqual(['for everybody'])
  })

  it('is told when events are lost', async () => {
    const gateway = await startRestartable()
    const page = await openPage(browser, `${gateway.proxy.url}/sse.html`)
    await connected(page)
    await gateway.publish(topic, 'one')
    await shown(page, 'one')
    await gateway.restart(() => gateway.forget())
    await page.locator('#loss', { hasText: 'the gateway has lost its journal' }).waitFor()
    await rows(page).getByText('Events may be missing here').waitFor()
  })
})
