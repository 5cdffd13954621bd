import { expect, onTestFinished, test } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'
import { openSource, type TestSource } from '../transports/event-source.js'

const admins = (user: string): ConfigInput['access'] => ({
  jwt: { secret: 'x'.repeat(32) },
  rules: [
    { to: 'anonymous', publish: ['#'] },
    { to: { user }, admin: true },
  ],
})

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  return gateway
}

async function open({ urls }: TestGateway): Promise<TestSource> {
  const source = await openSource(`${urls.http}/v1/dashboard/events`)
  onTestFinished(() => source.leave())
  return source
}

test('a reload ends dashboards with a reason; one that is opened then has the new configuration, and topics', async () => {
  const gateway = await start()
  const before = await open(gateway)
  await eventually(() => before.of('snapshot').length > 0)
  await gateway.reload({ limits: { connections: 77 } })
  await before.end()
  expect(before.of('end')).toEqual([expect.objectContaining({ reason: 'configuration-changed' })])
  await fetch(`${gateway.urls.http}/v1/publish?topic=a`, { method: 'POST', body: 'x' })
  const after = await open(gateway)
  await eventually(() => after.of('topics').some(list => Array.isArray(list) && list.length > 0))
  expect(after.of('welcome')).toEqual([expect.objectContaining({ maxConnections: 77 })])
})

test('the dashboard is a page with a content policy of its own, unless a directory has one, and asks for users', async () => {
  const gateway = await start({ access: admins('alice') })
  const page = await fetch(`${gateway.urls.http}/dashboard`)
  expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8'])
  expect(page.headers.get('content-security-policy')).toContain("default-src 'none'")
  const statuses = await Promise.all(
    ['/dashboard/', '/dashboard/dashboard.js', '/vendor/uplot.min.js', '/dashboard/..%2fpackage.json'].map(
      async path => (await fetch(gateway.urls.http + path)).status,
    ),
  )
  expect(statuses).toEqual([200, 200, 200, 404])
  expect((await fetch(`${gateway.urls.http}/v1/dashboard/events`)).status).toBe(401)
  const foreign = { headers: { origin: 'https://other.example' } }
  expect((await fetch(`${gateway.urls.http}/v1/dashboard/events`, foreign)).status).toBe(403)
})

test('a gateway that is anonymous for everybody has no administrators', async () => {
  const gateway = await start({ anonymous: true })
  expect((await fetch(`${gateway.urls.http}/v1/dashboard/events`)).status).toBe(403)
})
