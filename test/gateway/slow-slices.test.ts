import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Writable } from 'node:stream'
import { expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { startTestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

it('what holds the event loop up names itself in the log, at debug', async () => {
  const lines: string[] = []
  const destination = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk))
      done()
    },
  })
  const gateway = await startTestGateway(
    { https: { port: 'off' } },
    createLog({ level: 'debug', format: 'json' }, destination),
  )
  onTestFinished(() => gateway.close())
  const hold = (): void => {
    const until = performance.now() + 300
    while (performance.now() < until) {}
  }
  subscribe('http.server.response.finish', hold)
  onTestFinished(() => void unsubscribe('http.server.response.finish', hold))
  await fetch(new URL('/healthz?ticket=secret', gateway.urls.http))
  const told = (): string | undefined =>
    lines.find(line => /The event loop was blocked/.test(line) && /"http request"/.test(line))
  await eventually(() => told() !== undefined)
  expect(JSON.parse(told() ?? '')).toMatchObject({ peer: '127.0.0.1', path: '/healthz' })
  const metrics = await (await fetch(new URL('/metrics', gateway.urls.http))).text()
  expect(metrics).toMatch(/^mqway_slow_slices_total\{cause="http request"\} [1-9]/m)
})
