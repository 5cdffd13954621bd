import { expect, it, onTestFinished } from 'vitest'
import type { ConnectOptions } from '../../src/client/api.js'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway } from '../helpers/gateway.js'
import { type Meddling, startMeddlingProxy } from '../helpers/meddling-proxy.js'
import { recorded } from './rig.js'

async function startRig(meddling: Meddling, options: ConnectOptions = {}, config: ConfigInput = {}) {
  const gateway = await startTestGateway(config)
  onTestFinished(() => gateway.close())
  const proxy = await startMeddlingProxy(() => gateway.urls.http, meddling)
  onTestFinished(() => proxy.close())
  const heard = recorded({ url: proxy.url, topics: ['news/#'], upgradeAfter: 50, ...options })
  let published = 0
  return {
    gateway,
    proxy,
    heard,
    /** Publishes, past the proxy, what is numbered from 1 on. */
    publish: async (count: number) => {
      for (let i = 0; i < count; i++) {
        const url = `${gateway.urls.http}/v1/publish?topic=news/eu`
        const { status } = await fetch(url, { method: 'POST', body: String(++published) })
        expect(status).toBe(201)
      }
    },
    /** Everything that was published has come, once and in order. */
    complete: async () => {
      await heard.until(() => heard.events.length >= published)
      expect(heard.payloads).toEqual(Array.from({ length: published }, (_, index) => String(index + 1)))
      expect(heard.gaps).toEqual([])
    },
  }
}

it.each([
  { what: 'refuses WebSockets', meddling: { sockets: 'refused' }, transport: 'sse' },
  { what: 'cuts WebSockets', meddling: { sockets: 'cut' }, transport: 'sse' },
  { what: 'also keeps event streams back', meddling: { sockets: 'refused', streams: 'buffered' }, transport: 'poll' },
] as const)('gets through a proxy that $what, over $transport', async ({ meddling, transport }) => {
  const { heard, publish, complete } = await startRig(meddling, { connectTimeout: 300 })
  await heard.open(transport)
  await heard.until(() => heard.client.cursor !== undefined)
  await publish(20)
  await complete()
})

it('comes back to a better transport as soon as that gets through, and hears nothing twice', async () => {
  const { gateway, heard, proxy, publish, complete } = await startRig(
    { sockets: 'refused', streams: 'buffered' },
    { connectTimeout: 100 },
    { push: { presence: { grace: '100ms' } } },
  )
  await heard.open('poll')
  await heard.until(() => heard.client.cursor !== undefined)
  let over = false
  const publishing = (async () => {
    while (!over) await publish(1)
  })()
  proxy.meddling = { sockets: 'refused' }
  await heard.open('sse')
  proxy.meddling = {}
  await heard.open('socket')
  over = true
  await publishing
  await publish(5)
  await complete()
  // It was never without a connection, and has one in the end.
  expect(heard.states.map(({ phase }) => phase)).not.toContain('waiting')
  await heard.until(async () => {
    const { listeners } = await (await fetch(`${gateway.urls.http}/v1/presence?topic=news/eu`)).json()
    return listeners.length === 1 && listeners[0].transport === 'socket'
  })
})

it('tries soon again when connections that worked are cut soon, and ever later when there is nobody', async () => {
  const { gateway, heard, proxy } = await startRig({}, { transports: ['sse'], retry: { min: 4, max: 600_000 } })
  for (let cut = 0; cut < 8; cut++) {
    await heard.open('sse')
    proxy.cut()
    await heard.until(() => heard.client.state.phase === 'waiting')
  }
  const failures = (): number[] => heard.states.flatMap(state => (state.phase === 'waiting' ? [state.failures] : []))
  expect(Math.max(...failures())).toBeLessThanOrEqual(3)
  await gateway.close()
  proxy.cut()
  await heard.until(() => Math.max(...failures()) >= 6)
})

it('remembers what works: a connection that is lost is made anew in the same way', async () => {
  const { heard, proxy, publish, complete } = await startRig({ sockets: 'refused' }, { upgradeAfter: 60_000 })
  await heard.open('sse')
  await heard.until(() => heard.client.cursor !== undefined)
  const before = proxy.requests.length
  proxy.cut()
  await heard.until(() => heard.client.state.phase === 'waiting')
  await publish(3)
  await complete()
  expect(proxy.requests.slice(before)).toEqual(['/v1/events'])
})

it('moves on when a proxy begins to keep sockets and streams back, in the middle', async () => {
  const { heard, proxy, publish, complete } = await startRig({}, { connectTimeout: 100, upgradeAfter: 60_000 })
  await heard.open('socket')
  await heard.until(() => heard.client.cursor !== undefined)
  await publish(3)
  proxy.meddling = { sockets: 'refused', streams: 'buffered' }
  proxy.cut()
  await publish(3)
  await heard.open('poll')
  await publish(3)
  await complete()
})

it('notices that a connection has fallen silent, and moves on', async () => {
  const { heard, proxy, publish, complete } = await startRig({}, {}, { push: { heartbeat: '1s' } })
  await heard.open('socket')
  await heard.until(() => heard.client.cursor !== undefined)
  await publish(1)
  await heard.until(() => heard.events.length === 1)
  proxy.freeze()
  await publish(3)
  await heard.until(() => heard.client.state.phase === 'connecting')
  await complete()
})
