import { once } from 'node:events'
import net from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Ending } from '../../src/endings.js'
import { BodyBudget, keepBodies } from '../../src/http/kept-bodies.js'
import { eventually } from '../helpers/wait.js'
import { serve } from './rig.js'

async function serveEcho(budget = new BodyBudget(1_000_000), admit: () => void = () => {}): Promise<string> {
  return serve(app => {
    app.register(async scope => {
      scope.addHook('onRequest', async () => admit())
      keepBodies(scope, { limit: 1000, budget })
      scope.post('/v1/echo', async (request, reply) => reply.type('application/octet-stream').send(request.body))
    })
  })
}

describe('a body that is kept', () => {
  it.each(['text/plain', 'application/json', 'application/x-www-form-urlencoded', 'a/b'])(
    'comes byte for byte, as %s',
    async type => {
      const url = await serveEcho()
      const body = Buffer.from([0, 255, 10, 13, 0xe2, 0x80])
      const response = await fetch(`${url}/v1/echo`, { method: 'POST', body, headers: { 'content-type': type } })
      expect(Buffer.from(await response.arrayBuffer())).toEqual(body)
    },
  )

  it.each([
    ['with its length', 'x'.repeat(1001)],
    ['in chunks', new Blob(['x'.repeat(1001)]).stream()],
  ])('is refused when it is too large, %s', async (_how, body) => {
    const url = await serveEcho()
    const response = await fetch(`${url}/v1/echo`, { method: 'POST', body, duplex: 'half' } as object)
    expect([response.status, await response.json()]).toEqual([
      413,
      expect.objectContaining({ reason: 'body-too-large', detail: expect.stringContaining('(limits.bodySize)') }),
    ])
  })

  it('counts to all that come at the same time, until it is there or its client has left', async () => {
    const budget = new BodyBudget(1200)
    const url = await serveEcho(budget)
    const slow = net.connect(Number(new URL(url).port), '127.0.0.1')
    onTestFinished(() => void slow.destroy())
    await once(slow, 'connect')
    slow.write('POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 999\r\n\r\n')
    slow.write('x'.repeat(500))
    await eventually(() => budget.used === 500)
    const refused = await fetch(`${url}/v1/echo`, { method: 'POST', body: 'x'.repeat(900) })
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect(await refused.json()).toMatchObject({ reason: 'bodies-too-many' })
    slow.destroy()
    await eventually(() => budget.used === 0)
    const taken = await fetch(`${url}/v1/echo`, { method: 'POST', body: 'x'.repeat(900) })
    expect(taken.status).toBe(200)
    await eventually(() => budget.used === 0)
  })

  it('of somebody who is not let in is not kept', async () => {
    const budget = new BodyBudget(1200)
    const url = await serveEcho(budget, () => {
      throw new Ending('identity-required')
    })
    const response = await fetch(`${url}/v1/echo`, { method: 'POST', body: 'x'.repeat(900) })
    expect([response.status, budget.used]).toEqual([401, 0])
  })
})
