import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const article = 'this is the message about european sports'

/** What Chromium itself reports of a server that is away; no page can keep it out of the console. */
const networkIsDown = /WebSocket connection to .* failed|Failed to load resource/

let browser: Browser
const cleanups: (() => Promise<void>)[] = []

async function gatewayForThisTest(config: Parameters<typeof startTestGateway>[0] = {}): Promise<TestGateway> {
  const gateway = await startTestGateway(config)
  onTestFinished(() => gateway.close())
  return gateway
}

/** Opens the page, and fails the test in the end if anything at all went wrong in it. */
async function openPage(url: string, options: BrowserContextOptions = {}, expected = /^$/): Promise<Page> {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  const faults: string[] = []
  page.on('console', message => {
    if (message.type() === 'error' && !expected.test(message.text())) faults.push(message.text())
  })
  page.on('pageerror', error => faults.push(error.message))
  page.on('dialog', dialog => {
    faults.push(`a dialog: ${dialog.message()}`)
    void dialog.dismiss()
  })
  await page.exposeFunction('reportViolation', (what: string) => faults.push(what))
  await page.addInitScript(
    `addEventListener('securitypolicyviolation', e => reportViolation('CSP: ' + e.violatedDirective + ' ' + e.blockedURI))`,
  )
  onTestFinished(async () => {
    await context.close()
    expect(faults).toEqual([])
  })
  await page.goto(url)
  return page
}

async function mosquittoForThisTest(): Promise<Mosquitto> {
  const mosquitto = await startMosquitto()
  onTestFinished(() => mosquitto.stop())
  return mosquitto
}

/** In front of a broker: answers CONNECT of MQTT 5 with `refusal`, or ends the connection without one. Returns its URL. */
async function startOldBroker(broker: Mosquitto, refusal?: Buffer): Promise<string> {
  const server = createServer(client => {
    const upstream = connect(broker.port, '127.0.0.1')
    const end = (): void => {
      client.destroy()
      upstream.destroy()
    }
    client.on('error', end).on('close', end)
    upstream.on('error', end)
    client.once('data', (bytes: Buffer) => {
      // The protocol level follows the length (one byte here) and the name.
      if (bytes[0] === 0x10 && bytes.includes(Buffer.from('\0\x04MQTT\x05', 'latin1'))) {
        if (refusal) client.end(refusal)
        else client.destroy()
        return
      }
      upstream.write(bytes)
      client.pipe(upstream).pipe(client)
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  return `mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const state = (page: Page) => page.locator('#state')
const subscription = (page: Page, filter: string) => page.getByLabel('Subscriptions').locator('li', { hasText: filter })
const rows = (page: Page) => page.getByLabel('Messages, newest first').locator('li')

async function subscribed(page: Page, filter = '/news/+/sport'): Promise<void> {
  await subscription(page, filter).and(page.locator('[data-state="granted"]')).waitFor()
}

async function mosquittoPub(gateway: TestGateway, ...args: string[]): Promise<void> {
  const publisher = run('mosquitto_pub', ['-h', '127.0.0.1', '-p', String(gateway.mqttPort), ...args])
  expect(await publisher.exited(), publisher.errors()).toBe(0)
}

describeWith(
  ['chromium-headless-shell', 'mosquitto', 'mosquitto_pub', 'mosquitto_sub'],
  'a person with the page',
  () => {
    beforeAll(async () => {
      browser = await launchChromium(close => cleanups.push(close))
    })
    afterAll(async () => {
      for (const cleanup of cleanups) await cleanup()
    })

    it('falls back to MQTT 3.1 (MQIsdp) and the subprotocol mqttv3.1 where the endpoint has no other', async () => {
      const gateway = await gatewayForThisTest({ tunnels: [{ path: '/mqtt', subprotocols: ['mqttv3.1'] }] })
      // Chromium reports the refusal of the first attempt, with the subprotocol mqtt.
      const page = await openPage(gateway.urls.https, {}, networkIsDown)
      await subscribed(page)
      expect(await state(page).textContent()).toContain('MQTT 3.1 over wss')
      await mosquittoPub(gateway, '-t', '/news/europe/sport', '-m', article)
      await rows(page).first().getByText(article, { exact: true }).waitFor()
    })

    it('connects over wss, subscribes, and sees what mosquitto_pub sends', async () => {
      const gateway = await gatewayForThisTest()
      const page = await openPage(gateway.urls.https)
      await subscribed(page)
      expect(await state(page).textContent()).toBe('Connected: MQTT 5 over wss')
      expect(await subscription(page, '/news/+/sport').textContent()).toContain('QoS 1')
      expect(await page.title()).toContain('connected')

      await mosquittoPub(gateway, '-t', '/news/europe/sport', '-q', '1', '-m', article)
      const row = rows(page).first()
      await row.getByText(article, { exact: true }).waitFor()
      const text = await row.textContent()
      expect(text).toContain('/news/europe/sport')
      expect(text).toContain('QoS 1')
      expect(await row.locator('time').textContent()).toMatch(/^\d\d:\d\d:\d\d\.\d{3}$/)
      expect(await subscription(page, '/news/+/sport').textContent()).toContain('1 message')
    })

    it('connects over plain ws when the page came over http', async () => {
      const gateway = await gatewayForThisTest()
      const page = await openPage(gateway.urls.http)
      await subscribed(page)
      expect(await state(page).textContent()).toBe('Connected: MQTT 5 over ws')
    })

    it.each(['the built-in broker', 'mosquitto'])(
      'sees the properties of messages of %s, and sends some',
      async broker => {
        const url = async (): Promise<string> => `mqtt://127.0.0.1:${(await mosquittoForThisTest()).port}`
        const gateway = await gatewayForThisTest(broker === 'mosquitto' ? { broker: await url() } : {})
        const page = await openPage(gateway.urls.https)
        await subscribed(page)
        expect(await state(page).textContent()).toBe('Connected: MQTT 5 over wss')
        const properties = [
          ['content-type', 'text/plain'],
          ['message-expiry-interval', '3600'],
          ['response-topic', 'answers/7'],
          ['correlation-data', 'abc'],
          ['user-property', '<b>unit</b>', 'goals'],
        ].flatMap(property => ['-D', 'publish', ...property])
        await mosquittoPub(gateway, '-V', '5', '-i', 'p', '-t', '/news/europe/sport', '-m', article, ...properties)
        const list = rows(page).first().locator('.message-properties')
        await list.waitFor()
        const pairs = await list.locator('div').evaluateAll(divs => divs.map(div => div.textContent))
        expect(pairs).toEqual([
          'Content typetext/plain',
          'Expiresin 1 h',
          'Response topicanswers/7',
          'Correlation dataabc',
          '<b>unit</b>goals',
        ])

        const subscriber = run('mosquitto_sub', [
          ...[
            '-p',
            String(gateway.mqttPort),
            '-V',
            '5',
            '-i',
            's',
            '-t',
            '/news/usa/sport',
            '-C',
            '1',
            '-F',
            '%C|%E|%P|%p',
          ],
        ])
        onTestFinished(() => subscriber.stop())
        await page.getByText('Properties of MQTT 5').first().click()
        await page.getByLabel('Topic', { exact: true }).fill('/news/usa/sport')
        await page.getByLabel('Payload').fill('21')
        await page.getByLabel('Content type').fill('text/x-degrees')
        await page.getByLabel('Expires after').fill('soon')
        await page.getByLabel('User properties').fill('unit: °C\nsensor: 7')
        const publish = page.getByRole('button', { name: 'Publish', exact: true })
        await publish.click()
        await page.getByText('The expiry is a whole number of seconds').waitFor()
        expect(await page.getByLabel('Expires after').getAttribute('aria-invalid')).toBe('true')
        await page.getByLabel('Expires after').fill('600')
        let received: string | undefined
        void subscriber.line().then(line => {
          received = line
        })
        // Until mosquitto_sub has subscribed.
        await eventually(async () => {
          await publish.click()
          await page.getByText(/Published, acknowledged after \d+ ms/).waitFor()
          return received !== undefined
        })
        expect(received).toMatch(/^text\/x-degrees\|(600|599)\|unit:°C sensor:7\|21$/)
      },
    )

    it('is told that nobody has subscribed, and that a message was refused, by MQTT 5', async () => {
      const directory = await mkdtemp(join(tmpdir(), 'mqway-acl-'))
      onTestFinished(() => rm(directory, { recursive: true }))
      const file = join(directory, 'acl')
      await writeFile(file, 'topic readwrite open/#\ntopic read #\n')
      const mosquitto = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous true', `acl_file ${file}`])
      onTestFinished(() => mosquitto.stop())
      const gateway = await gatewayForThisTest({ broker: `mqtt://127.0.0.1:${mosquitto.port}` })
      const page = await openPage(gateway.urls.https)
      await subscribed(page)
      await page.getByLabel('Topic', { exact: true }).fill('open/quiet')
      await page.getByRole('button', { name: 'Publish', exact: true }).click()
      await page.getByText(/^Published, acknowledged after \d+ ms \(QoS 1\)\. No client has subscribed/).waitFor()
      await page.getByLabel('Topic', { exact: true }).fill('/news/europe/sport')
      await page.getByRole('button', { name: 'Publish', exact: true }).click()
      await page.getByText('The broker refused this message: not authorized (reason code 0x87).').waitFor()
    })

    it.each([
      ['refuses it with return code 1', Buffer.from([0x20, 2, 0, 1])],
      ['refuses it with reason code 0x84', Buffer.from([0x20, 3, 0, 0x84, 0])],
      ['ends the connection', undefined],
    ])('falls back to MQTT 3.1.1 at once where the broker of MQTT 5 %s', async (_how, refusal) => {
      const gateway = await gatewayForThisTest({ broker: await startOldBroker(await mosquittoForThisTest(), refusal) })
      const page = await openPage(gateway.urls.https)
      await subscribed(page)
      expect(await state(page).textContent()).toBe('Connected: MQTT 3.1.1 over wss')
      await page.getByText('Properties of MQTT 5').first().click()
      await page.getByText('an older version of MQTT, which has none').waitFor()
      await page.getByLabel('User properties').waitFor({ state: 'hidden' })
      await page.getByRole('button', { name: 'Publish', exact: true }).click()
      await rows(page).first().getByText(article, { exact: true }).waitFor()
      expect(await rows(page).first().locator('.message-properties').count()).toBe(0)
    })

    it('publishes with QoS 1 and retain, and mosquitto_sub gets it, then and later', async () => {
      const gateway = await gatewayForThisTest()
      const listen = () => {
        const subscriber = run('mosquitto_sub', [
          '-h',
          '127.0.0.1',
          '-p',
          String(gateway.mqttPort),
          '-t',
          '/news/#',
          '-F',
          '%r %q %t %p',
          '-q',
          '1',
        ])
        onTestFinished(() => subscriber.stop())
        return subscriber
      }
      const lineWith = async (subscriber: ReturnType<typeof listen>, text: string): Promise<string> => {
        for (;;) {
          const line = await subscriber.line()
          if (line.includes(text)) return line
        }
      }
      // What it hears first is retained: from then on it is subscribed.
      await mosquittoPub(gateway, '-t', '/news/ready', '-r', '-m', 'ready')
      const early = listen()
      await lineWith(early, '/news/ready')

      const page = await openPage(gateway.urls.https)
      await subscribed(page)
      await page.getByLabel('Topic', { exact: true }).fill('/news/usa/sport')
      await page.getByLabel('Payload').fill('from the page\nin two lines')
      await page.getByLabel('Retain').check()
      await page.getByLabel('Payload').press('Control+Enter')
      await page.getByText(/Published and retained, acknowledged after \d+ ms/).waitFor()

      expect(await lineWith(early, '/news/usa/sport from the page')).toBe('0 1 /news/usa/sport from the page')
      expect(await lineWith(listen(), '/news/usa/sport from the page')).toBe('1 1 /news/usa/sport from the page')

      await page.getByRole('button', { name: 'Clear retained' }).click()
      await page.getByText(/Retained message cleared, acknowledged/).waitFor()
    })

    it('is told what is wrong before anything is sent', async () => {
      const gateway = await gatewayForThisTest()
      const page = await openPage(gateway.urls.https)
      await subscribed(page)
      await page.getByLabel('Topic filter').fill('/news/#/sport')
      await page.getByRole('button', { name: 'Subscribe', exact: true }).click()
      await page.getByText('it can only come last').waitFor()
      await page.getByLabel('Topic', { exact: true }).fill('/news/+/sport')
      await page.getByRole('button', { name: 'Publish', exact: true }).click()
      await page.getByText('+ and # are wildcards for subscriptions only').waitFor()
      expect(await page.getByLabel('Subscriptions').locator('li').count()).toBe(1)
    })

    it('unsubscribes, and hears no more of it', async () => {
      const gateway = await gatewayForThisTest()
      const page = await openPage(gateway.urls.https)
      await subscribed(page)
      await page.getByRole('button', { name: '/news/#', exact: true }).click()
      await subscribed(page, '/news/#')
      await page.getByRole('button', { name: 'Unsubscribe from /news/#' }).click()
      await subscription(page, '/news/#').waitFor({ state: 'detached' })

      await mosquittoPub(gateway, '-t', '/news/weather', '-m', 'not for this page any more')
      // One publisher after the other: what comes second through the same broker shows that the first did not come.
      await mosquittoPub(gateway, '-t', '/news/europe/sport', '-m', article)
      await rows(page).getByText(article).waitFor()
      expect(await rows(page).count()).toBe(1)
    })

    it('sees why the connection was lost, when the next try is, and everything back afterwards', async () => {
      const first = await startTestGateway()
      const page = await openPage(first.urls.https, {}, networkIsDown)
      await subscribed(page)
      await first.close()
      await page.getByText('Connection lost').waitFor()
      await page.getByText('The gateway is shutting down').first().waitFor()
      await page.getByText(/Next try in \d+ s/).waitFor()
      expect(await page.title()).toContain('not connected')

      const second = await gatewayForThisTest({ https: { port: Number(new URL(first.urls.https).port) } })
      // The page comes back by itself; a person who does not want to wait has a button, which may just have gone away.
      await page.getByText('Connected: MQTT 5 over wss').waitFor({ timeout: 25_000 })
      await subscribed(page)
      await mosquittoPub(second, '-t', '/news/europe/sport', '-m', 'after the return')
      await rows(page).getByText('after the return').waitFor()
    })

    it('sees that it is the broker that is away, when the gateway is not', async () => {
      const gateway = await gatewayForThisTest({ broker: 'mqtt://127.0.0.1:1', mqtt: { port: 'off' } })
      const page = await openPage(gateway.urls.https, {}, networkIsDown)
      await page.getByText('The gateway is running, but its MQTT broker is unavailable.').waitFor()
      await page.getByText(/Next try in \d+ s/).waitFor()
      expect(await state(page).textContent()).not.toContain('Connected')
    })

    it('is told about a wrong path, and connects with the right one', async () => {
      const gateway = await gatewayForThisTest()
      const page = await openPage(gateway.urls.https, {}, networkIsDown)
      await subscribed(page)
      await page.getByRole('button', { name: 'Settings' }).click()
      await page.getByLabel('Path').fill('/elsewhere')
      await page.getByLabel('Path').press('Enter')
      await page.getByText('There is no WebSocket endpoint at /elsewhere.').waitFor()
      await page.getByRole('button', { name: 'Settings' }).click()
      await page.getByLabel('Path').fill('/mqtt')
      await page.getByLabel('Path').press('Enter')
      await subscribed(page)
    })

    it('sees markup in a topic and in a payload as the text that it is', async () => {
      const gateway = await gatewayForThisTest()
      const page = await openPage(gateway.urls.https)
      await subscribed(page)
      const topic = '/news/<img src=x onerror=alert(1)>/sport'
      const payload = '<script>alert(2)</script>'
      await mosquittoPub(gateway, '-t', topic, '-m', payload)
      const row = rows(page).first()
      await row.getByText(payload, { exact: true }).waitFor()
      expect(await row.locator('.topic').textContent()).toBe(topic)
      expect(await page.locator('.message img, .message script').count()).toBe(0)
    })

    it('reads JSON, bytes and a burst without losing count', async () => {
      const gateway = await gatewayForThisTest()
      const page = await openPage(gateway.urls.https)
      await subscribed(page)
      await mosquittoPub(gateway, '-t', '/news/a/sport', '-m', '{"goals":[1,2]}')
      await page.getByRole('button', { name: 'Pretty' }).click()
      await rows(page).getByText('"goals": [').waitFor()
      await mosquittoPub(gateway, '-t', '/news/a/sport', '-m', '\u0001\u0002')
      await rows(page).getByText('01 02', { exact: true }).waitFor()

      const burst = run('mosquitto_pub', [
        '-h',
        '127.0.0.1',
        '-p',
        String(gateway.mqttPort),
        '-t',
        '/news/a/sport',
        '-q',
        '1',
        '-l',
      ])
      burst.child.stdin.end(Array.from({ length: 2_000 }, (_, index) => `message ${index}\n`).join(''))
      expect(await burst.exited(), burst.errors()).toBe(0)
      await rows(page).first().getByText('message 1999', { exact: true }).waitFor()
      expect(await page.locator('#log-count').textContent()).toBe('2,002 received · the oldest 1,502 dropped')
      expect(await rows(page).count()).toBe(500)
    })

    it('can use it on a phone, without scrolling sideways', async () => {
      const gateway = await gatewayForThisTest()
      const page = await openPage(gateway.urls.https, { viewport: { width: 360, height: 740 } })
      await subscribed(page)
      await mosquittoPub(gateway, '-t', `/news/${'a-very-long-level'.repeat(10)}/sport`, '-m', 'x'.repeat(500))
      await rows(page).first().waitFor()
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360)
    })
  },
)
