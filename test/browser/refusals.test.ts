import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { openPage } from './push-rig.js'

/*
 * Pages that are refused something: what they say, and how one gets on. Those for event streams, long-polling and sockets have this
 * from the same modules (public/push-page.js): each test takes one of them.
 */

let browser: Browser
let people: People
const cleanups: (() => Promise<void>)[] = []

async function start(config: ConfigInput): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  return gateway
}

const reason = (page: Page) => page.locator('#reason-sentence')
const state = (page: Page) => page.locator('#state')

async function logIn(page: Page, password: string): Promise<void> {
  await page.getByLabel('User name').fill('alice')
  await page.getByLabel('Password or token').fill(password)
  await page.getByLabel('Password or token').press('Enter')
}

/** Listens to another topic in place of the one that a page begins with. */
async function listenInstead(page: Page, filter: string): Promise<void> {
  await page.getByLabel('Topic filter').fill(filter)
  await page.getByRole('button', { name: 'Listen', exact: true }).click()
  await page.getByRole('button', { name: 'Stop listening to /news/+/sport' }).click()
}

async function publish(page: Page, topic: string, payload: string): Promise<void> {
  await page.getByLabel('Topic', { exact: true }).fill(topic)
  await page.getByLabel('Payload').last().fill(payload)
  await page.getByRole('button', { name: 'Publish', exact: true }).click()
}

describeWith(['chromium-headless-shell', 'openssl'], 'a page that is refused', () => {
  beforeAll(async () => {
    people = await People.start()
    cleanups.push(() => people.stop())
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it('of long-polling says why nothing is pushed in front of another broker', async () => {
    const gateway = await start({ broker: 'mqtt://127.0.0.1:9' })
    const page = await openPage(browser, `${gateway.urls.http}/long-poll.html`)
    await reason(page)
      .getByText(/^Push is off: .*push\.topics.*\.$/)
      .waitFor()
    await publish(page, 'a', 'x')
    await page.locator('#publish-outcome', { hasText: 'Push is off' }).waitFor()
  })

  it.each(['couchdb', 'rrr-push'])('of %s says why nothing is pushed in front of another broker', async name => {
    const gateway = await start({ broker: 'mqtt://127.0.0.1:9' })
    const page = await openPage(browser, `${gateway.urls.http}/${name}.html`)
    await state(page).getByText('Push is off').waitFor()
    expect(await state(page).textContent()).toContain('push.topics')
  })

  // docs/access.md, “Public read, authenticated publish”.
  it('of event streams gets on with the recipe for public reading', async () => {
    const rules = [
      { to: 'anonymous' as const, subscribe: ['news/#'] },
      { to: 'authenticated' as const, publish: ['news/#'] },
    ]
    const gateway = await start({ access: { htpasswd: people.file('users'), rules } })
    const page = await openPage(browser, `${gateway.urls.http}/sse.html`)
    await state(page).getByText('Refused', { exact: true }).waitFor()
    await reason(page).getByText('This topic is not open to you: /news/+/sport.').waitFor()
    await listenInstead(page, 'news/#')
    await state(page).getByText('Connected over').waitFor()

    await publish(page, 'news/europe', 'from nobody')
    await page.locator('#publish-outcome', { hasText: 'not open to you' }).waitFor()
    await page.getByRole('button', { name: 'Log in' }).click()
    await logIn(page, 'wrong')
    await page.locator('#login-objection', { hasText: 'credentials are not accepted' }).waitFor()
    // Nothing has to be typed again but the password.
    await page.getByLabel('Password or token').fill('right')
    await page.getByLabel('Password or token').press('Enter')
    await page.getByRole('button', { name: 'Logged in: alice' }).waitFor()
    await state(page).getByText('Connected over').waitFor()
    await publish(page, 'news/europe', 'from alice')
    await page.locator('#publish-outcome', { hasText: 'Published, acknowledged' }).waitFor()
    await page.getByLabel('Messages, newest first').getByText('from alice', { exact: true }).waitFor()
  })

  // docs/access.md, “Everybody has their own topics”.
  it('of sockets gets on with the recipe for own topics', async () => {
    const rules = [{ to: 'authenticated' as const, publish: ['home/%u/#'], subscribe: ['home/%u/#'] }]
    const gateway = await start({ access: { htpasswd: people.file('users'), rules } })
    const page = await openPage(browser, `${gateway.urls.http}/socket.html`)
    await reason(page).getByText('Authentication required.').waitFor()
    await logIn(page, 'right')
    await reason(page).getByText('This topic is not open to you: /news/+/sport.').waitFor()
    await listenInstead(page, 'home/alice/#')
    await state(page).getByText('Connected over').waitFor()
    await publish(page, 'home/alice/door', 'open')
    await page.getByLabel('Messages, newest first').getByText('open', { exact: true }).waitFor()
    await page.getByRole('button', { name: 'Logged in: alice' }).click()
    await page.getByRole('button', { name: 'Log out' }).click()
    await reason(page).getByText('Authentication required.').waitFor()
  })

  it('takes a token where there is no user name', async () => {
    const gateway = await start({
      access: { jwt: people.access.jwt, rules: [{ to: 'authenticated', subscribe: ['#'] }] },
    })
    const page = await openPage(browser, `${gateway.urls.http}/long-poll.html`)
    await reason(page).getByText('Authentication required.').waitFor()
    await page.getByLabel('Password or token').fill(await people.token())
    await page.getByLabel('Password or token').press('Enter')
    await page.getByRole('button', { name: 'Logged in: token' }).waitFor()
  })

  it('with MQTT says what the handshake was refused for, and logs in there with a ticket', async () => {
    const access = { htpasswd: people.file('users') }
    const gateway = await start({ access, tunnels: [{ path: '/mqtt', requireIdentity: true }] })
    const page = await openPage(browser, gateway.urls.http)
    await reason(page).getByText('Authentication required.').waitFor()
    const password = page.getByLabel('Password')
    for (const attempt of ['wrong', 'right']) {
      await page.getByLabel('User name').fill('alice')
      await password.fill(attempt)
      await password.press('Enter')
      if (attempt === 'right') break
      await reason(page).getByText('The credentials are not accepted').waitFor()
      expect(await password.isVisible()).toBe(true)
    }
    await state(page).getByText('Connected: MQTT 5').waitFor()
    await password.waitFor({ state: 'hidden' })
  })

  it.each([
    { name: 'couchdb', topic: 'notifications/a', payload: '{"msg":"hello"}' },
    { name: 'rrr-push', topic: 'push/1', payload: 'hello' },
  ])('of $name offers a login, and takes it', async ({ name, topic, payload }) => {
    const rules = [{ to: 'authenticated' as const, publish: ['#'], subscribe: ['#'] }]
    const gateway = await start({ access: { htpasswd: people.file('users'), rules } })
    const page = await openPage(browser, `${gateway.urls.http}/${name}.html`)
    await state(page).getByText('Authentication required').waitFor()
    await logIn(page, 'wrong')
    await state(page).getByText('credentials are not accepted').waitFor()
    await logIn(page, 'right')
    // Long before RRR's first answer, which takes five seconds.
    await state(page).getByText('Connected', { exact: true }).waitFor()
    const headers = { authorization: `Basic ${btoa('alice:right')}` }
    const url = `${gateway.urls.http}/v1/publish?topic=${encodeURIComponent(topic)}`
    expect((await fetch(url, { method: 'POST', body: payload, headers })).status).toBe(201)
    await page.getByLabel('Messages, newest first').getByText('hello', { exact: true }).waitFor()
  })
})
