import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { expect, onTestFinished } from 'vitest'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { type Meddling, type MeddlingProxy, startMeddlingProxy } from '../helpers/meddling-proxy.js'

/** A gateway with a journal on disk behind a proxy: its URL stays the same when the gateway is started anew. */
export interface RestartableGateway {
  readonly proxy: MeddlingProxy
  readonly current: TestGateway
  /** Ends it, and starts another one on the same data. `meanwhile` is done while there is none. */
  restart(meanwhile?: () => Promise<void>): Promise<void>
  /** Removes everything that it has kept; while there is none. */
  forget(): Promise<void>
  /** Publishes past the proxy. */
  publish(topic: string, payload: string): Promise<void>
}

export async function startRestartable(meddling: Meddling = {}): Promise<RestartableGateway> {
  const data = await mkdtemp(join(tmpdir(), 'mqway-push-'))
  onTestFinished(() => rm(data, { recursive: true, force: true }))
  const start = (): Promise<TestGateway> => startTestGateway({ data, https: { port: 'off' } })
  let current = await start()
  onTestFinished(() => current.close())
  const proxy = await startMeddlingProxy(() => current.urls.http, meddling)
  onTestFinished(() => proxy.close())
  return {
    proxy,
    get current() {
      return current
    },
    restart: async meanwhile => {
      await current.close()
      await meanwhile?.()
      current = await start()
    },
    forget: async () => {
      await rm(data, { recursive: true })
      await mkdir(data)
    },
    publish: async (topic, payload) => {
      const url = `${current.urls.http}/v1/publish?topic=${encodeURIComponent(topic)}`
      const answer = await fetch(url, { method: 'POST', body: payload })
      expect(answer.status, await answer.text()).toBe(201)
    },
  }
}

/** What Chromium itself reports of a server that is away; no page can keep it out of the console. */
const networkIsDown = /WebSocket connection to .* failed|Failed to load resource/

/** Opens a page, and fails the test in the end if anything at all went wrong in it. */
export async function openPage(browser: Browser, url: string): Promise<Page> {
  const context = await browser.newContext()
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  const faults: string[] = []
  page.on('console', message => {
    if (message.type() === 'error' && !networkIsDown.test(message.text())) faults.push(message.text())
  })
  page.on('pageerror', error => faults.push(error.message))
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
