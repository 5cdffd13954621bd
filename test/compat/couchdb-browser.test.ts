import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import mqtt, { type MqttClient } from 'mqtt'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

/*
 * Clients of CouchDB in a real browser, on pages of another origin.
 */

const root = fileURLToPath(new URL('../..', import.meta.url))
const file = (path: string): string => join(root, path)

let browser: Browser
const cleanups: (() => Promise<void>)[] = []

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
  return gateway
}

async function publisher({ urls }: TestGateway): Promise<MqttClient> {
  const client = await mqtt.connectAsync(urls.mqtt)
  onTestFinished(() => client.endAsync(true))
  return client
}

async function openPage(url: string): Promise<Page> {
  const context = await browser.newContext()
  onTestFinished(() => context.close())
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  await page.goto(url)
  return page
}

/** A server with other files, which for a browser is another origin. */
const otherOrigin = async (directory: string): Promise<string> => (await start({ public: directory })).urls.http

/** A directory with one page, jQuery, and what calls JSONP as jquery-jsonp does. */
async function siteWith(script: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-couchdb-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  for (const [name, from] of [
    ['jquery.js', 'node_modules/jquery/dist/jquery.min.js'],
    ['jquery.jsonp.js', 'examples/couchdb/jsonp.js'],
  ] as const) {
    await copyFile(file(from), join(directory, name))
  }
  const scripts = '<script src="jquery.js"></script><script src="jquery.jsonp.js"></script>'
  await writeFile(
    join(directory, 'index.html'),
    `<html><head>${scripts}<script>${script}</script></head><body>cos</body></html>`,
  )
  return directory
}

/** The page of the article of 2011, as it was, with another address. */
const pageOfTheArticle = (server: string): string => `
function longpoll(since) {
  var url = "${server}/notifications/_changes?include_docs=true&feed=longpoll&since=" + since + "&callback=?";
  $.jsonp({
    "url": url,
    "success": function (data) {
      since = data.last_seq;
      try {
        console.log(data.results[0].doc.msg);
      } catch (err) {
        console.log("error:" + err);
      }
      longpoll(since);
    },
    "error": function () {
      console.log("error caught");
    }
  });
}
$.jsonp({
  "url": "${server}/notifications?callback=?",
  "success": function (data) {
    console.log("since " + data.update_seq);
    longpoll(data.update_seq);
  },
  "error": function () {
    console.log("error caught");
  }
});`

/** What a page says on its console. */
function consoleOf(page: Page): string[] {
  const lines: string[] = []
  page.on('console', message => {
    if (message.type() === 'log') lines.push(message.text())
  })
  return lines
}

const hard = [
  ...['"quotes" and \\" backslashes \\', 'line\r\nbreaks\u2028and\u2029others', '😀', '</script><script>alert(1)'],
  ...['twice', 'twice', '[1]', 'a'.repeat(1024 ** 2)],
]

describeWith(['chromium-headless-shell'], 'CouchDB’s clients in a browser', () => {
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it('the page of the article gets every message, each once and in order, with nothing changed but its URL', async () => {
    const gateway = await start({ push: { jsonp: true }, compat: { couchdb: { prefix: '/' } } })
    const url = await otherOrigin(await siteWith(pageOfTheArticle(gateway.urls.http)))
    const client = await publisher(gateway)
    await client.publishAsync('notifications', 'before it came', { qos: 1 })
    const page = await openPage('about:blank')
    const lines = consoleOf(page)
    await page.goto(url)
    await eventually(() => lines.length === 1)
    // In one burst, so that some come in the same moment, and some between two requests.
    await Promise.all(hard.map(payload => client.publishAsync('notifications', payload, { qos: 1 })))
    await client.publishAsync('notifications/below', '{"msg":"a field"}', { qos: 1 })
    await client.publishAsync('elsewhere', 'of nobody here', { qos: 1 })
    await client.publishAsync('notifications', 'last', { qos: 1 })
    await eventually(() => lines.at(-1) === 'last')
    expect(lines.slice(1)).toEqual([...hard, 'a field', 'last'])
  })

  it('the page of the article is told of an error where JSONP is off', async () => {
    const gateway = await start()
    const page = await openPage('about:blank')
    const lines = consoleOf(page)
    await page.goto(await otherOrigin(await siteWith(pageOfTheArticle(`${gateway.urls.http}/couchdb`))))
    await eventually(() => lines.length > 0)
    expect(lines).toEqual(['error caught'])
  })

  it.each([
    ['from another origin', () => otherOrigin(root)],
    ['from a file', async () => pathToFileURL(root).href],
  ])('the example lists what is published: %s', async (_, site) => {
    const gateway = await start({ push: { jsonp: true } })
    const server = encodeURIComponent(`${gateway.urls.http}/couchdb`)
    const page = await openPage(`${await site()}/examples/couchdb/index.html?server=${server}`)
    await page.getByText('Listening to notifications').waitFor()
    const client = await publisher(gateway)
    for (const text of ['hello', '<b>bold</b>']) await client.publishAsync('notifications', text, { qos: 1 })
    await client.publishAsync('notifications/europe', '{"msg":"from Europe"}', { qos: 1 })
    await page.getByText('from Europe').waitFor()
    expect(await page.locator('#messages li').allTextContents()).toEqual(['hello', '<b>bold</b>', 'from Europe'])
  })

  it('an EventSource gets every change, and comes back to where it was', async () => {
    const other = await otherOrigin(root)
    const gateway = await start({ push: { origins: [other] } })
    const client = await publisher(gateway)
    const page = await openPage(`${other}/README.md`)
    await page.evaluate(url => {
      const scope = globalThis as unknown as { got: string[] }
      scope.got = []
      // The first of its streams ends half-way.
      const source = new EventSource(`${url}/couchdb/notifications/_changes?feed=eventsource&include_docs=true&limit=4`)
      source.onmessage = ({ data, lastEventId }) => {
        const { seq, doc } = JSON.parse(data)
        scope.got.push(String(seq) === lastEventId ? doc.msg : `${seq} is not ${lastEventId}`)
      }
    }, gateway.urls.http)
    for (const text of hard) await client.publishAsync('notifications', text, { qos: 1 })
    const got = (): Promise<string[]> => page.evaluate(() => (globalThis as unknown as { got: string[] }).got)
    await eventually(async () => (await got()).length >= hard.length)
    expect(await got()).toEqual(hard)
  })

  it('fetch reads the lines of a continuous feed as they come', async () => {
    const other = await otherOrigin(root)
    const gateway = await start({ push: { origins: [other] } })
    const client = await publisher(gateway)
    await client.publishAsync('notifications', 'first', { qos: 1 })
    const page = await openPage(`${other}/README.md`)
    await page.evaluate(async url => {
      const scope = globalThis as unknown as { got: string[] }
      scope.got = []
      const answer = await fetch(`${url}/couchdb/notifications/_changes?feed=continuous&include_docs=true`)
      const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader()
      let rest = ''
      void (async () => {
        for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
          const lines = (rest + part.value).split('\n')
          rest = lines.pop() ?? ''
          scope.got.push(...lines.filter(line => line !== '').map(line => JSON.parse(line).doc.msg))
        }
      })()
    }, gateway.urls.http)
    const got = (): Promise<string[]> => page.evaluate(() => (globalThis as unknown as { got: string[] }).got)
    await eventually(async () => (await got()).length === 1)
    for (const text of hard) await client.publishAsync('notifications', text, { qos: 1 })
    await eventually(async () => (await got()).length > hard.length)
    expect(await got()).toEqual(['first', ...hard])
  })

  it('a page of another origin reads nothing without a script, unless it may', async () => {
    const other = await otherOrigin(root)
    const gateway = await start({ push: { jsonp: true } })
    const page = await openPage(`${other}/README.md`)
    const outcome = await page.evaluate(async url => {
      try {
        return String((await fetch(url)).status)
      } catch (error) {
        return String(error)
      }
    }, `${gateway.urls.http}/couchdb/notifications/_changes`)
    expect(outcome).toContain('Failed to fetch')
  })
})
