import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { launchChromium } from '../helpers/chromium.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { type RunningProgram, run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'

const directory = fileURLToPath(new URL('../../examples/transports', import.meta.url))
const commands: Readonly<Record<string, string>> = { sh: 'sh', py: '/usr/bin/python3', js: process.execPath }
const topic = 'news/europe/sport'
const hard = '"quotes" \\ é\u{1f600} </script> 100% $(true) a+b&c'

function start(script: string, ...args: string[]): RunningProgram {
  const program = run(commands[script.split('.')[1] ?? ''] ?? '', [`${directory}/${script}`, ...args])
  onTestFinished(() => program.stop())
  return program
}

async function gatewayWith(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  return gateway
}

/** Publishes what whoever comes gets first. */
async function retain({ urls }: TestGateway, payload: string): Promise<void> {
  const url = `${urls.http}/v1/publish?topic=${topic}&retain=true`
  expect((await fetch(url, { method: 'POST', body: payload })).status).toBe(201)
}

/** Publishes with the example for that, and returns the id. */
async function publish({ urls }: TestGateway, payload: string): Promise<string> {
  const program = start('publish.sh', topic, payload, urls.http)
  const { id } = JSON.parse(await program.line()) as { id: string }
  expect(await program.exited()).toBe(0)
  return id
}

describeWith(['curl', '/usr/bin/python3'], 'the examples for each transport', () => {
  it('print what is retained, what is published, and what is said over the socket', async () => {
    const gateway = await gatewayWith()
    await retain(gateway, 'before')
    const { http } = gateway.urls
    const socket = start('socket.js', 'news/#', topic, http)
    const texts = [start('events.py', 'news/#', http), start('long-poll.py', 'news/#', http), socket]
    const json = start('events.sh', 'news/#', http)
    const eachSays = async (payload: string): Promise<void> => {
      for (const program of texts) expect(await program.line()).toBe(`${topic} ${payload}`)
      expect(JSON.parse(await json.line())).toMatchObject({ topic, payload })
    }
    await eachSays('before')
    await publish(gateway, hard)
    await eachSays(hard)
    socket.child.stdin.write(`over the socket ${hard}\n`)
    await eachSays(`over the socket ${hard}`)
    for (const program of [...texts, json]) expect(program.errors()).toBe('')
  })

  it('go on where they were when the gateway was away', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-examples-'))
    onTestFinished(() => rm(data, { recursive: true, force: true }))
    const first = await gatewayWith({ data })
    await retain(first, 'before')
    const { http } = first.urls
    const programs = [
      start('events.py', 'news/#', http),
      start('long-poll.py', 'news/#', http),
      start('socket.js', 'news/#', topic, http),
    ]
    for (const program of programs) expect(await program.line()).toBe(`${topic} before`)
    await publish(first, 'one')
    for (const program of programs) expect(await program.line()).toBe(`${topic} one`)
    await first.close()
    const next = await gatewayWith({ data, http: { port: Number(new URL(http).port) } })
    await publish(next, 'two')
    for (const program of programs) expect(await program.line()).toBe(`${topic} two`)
  })

  it('acknowledge, and tell who did', async () => {
    const gateway = await gatewayWith()
    await retain(gateway, 'before')
    const { http } = gateway.urls
    const kitchen = start('events.py', 'news/#', http, 'kitchen')
    const hall = start('events.sh', 'news/#', http)
    for (const program of [kitchen, hall]) await program.line()
    const report = JSON.parse(await start('receipts.sh', topic, hard, http, '1').line())
    expect(report).toMatchObject({
      topic,
      requested: { from: 'present', count: 2 },
      receipts: [{ device: 'kitchen', status: 'processed' }],
    })
  })

  it('ask, and answer', async () => {
    const { http } = (await gatewayWith()).urls
    const answering = start('answer.py', 'lamp/get', hard, http)
    expect(await answering.line()).toBe('listening')
    for (const question of ['one', hard]) {
      expect(await start('request.sh', 'lamp/get', question, http).line()).toBe(hard)
      expect(await answering.line()).toBe(`answered: ${question}`)
    }
  })

  it.each(['events.sh', 'events.py', 'long-poll.py', 'publish.sh', 'receipts.sh', 'request.sh'])(
    '%s ends with an error where it is refused for good',
    async script => {
      const gateway = await gatewayWith()
      const isPublisher = ['publish.sh', 'receipts.sh', 'request.sh'].includes(script)
      const args = isPublisher ? ['a/#', 'x', gateway.urls.http] : ['a/#/b', gateway.urls.http]
      const program = start(script, ...args)
      await program.exited()
      expect(program.errors()).toContain('400')
    },
  )

  it('are all in the README, and all that is there exists', () => {
    const text = readFileSync(`${directory}/README.md`, 'utf8')
    const named = [...text.matchAll(/\]\(([\w-]+\.\w+)\)|examples\/transports\/([\w-]+\.\w+)/g)].map(
      ([, link, command]) => link ?? command,
    )
    for (const name of named) expect(existsSync(`${directory}/${name}`)).toBe(true)
    expect(new Set([...named, 'README.md'])).toEqual(new Set(readdirSync(directory)))
  })
})

describeWith('chromium-headless-shell', 'the example for browsers in Chromium', () => {
  let browser: Browser
  const cleanups: (() => Promise<void>)[] = []
  beforeAll(async () => {
    browser = await launchChromium(close => cleanups.push(close))
  })
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup()
  })

  it.each(['sse', 'poll', 'jsonp', 'socket'])('shows by %s what is there, and what it publishes itself', async way => {
    const gateway = await gatewayWith({ public: directory, push: { jsonp: true } })
    await retain(gateway, '<b>before</b>')
    const context = await browser.newContext()
    onTestFinished(() => context.close())
    const page = await context.newPage()
    const faults: unknown[] = []
    page.on('pageerror', error => faults.push(error))
    await page.goto(`${gateway.urls.http}/browser.html?way=${way}`)
    await page.getByText('Listening').waitFor()
    const lines = page.getByLabel('Events').locator('li')
    await lines.getByText('before').waitFor()
    for (const text of [hard, 'again']) {
      await page.getByLabel('Message').fill(text)
      await page.getByRole('button', { name: 'Publish' }).click()
      await lines.getByText(text, { exact: false }).waitFor()
    }
    expect(await lines.allTextContents()).toEqual(['<b>before</b>', hard, 'again'].map(text => `${topic} ${text}`))
    expect(faults).toEqual([])
  })
})
