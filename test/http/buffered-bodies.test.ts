import { once } from 'node:events'
import net from 'node:net'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import type { FastifyRequest } from 'fastify'
import { describe, expect, it, onTestFinished } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { BodyBudget, type BodySender } from '../../src/http/body-budget.js'
import { bufferBodies } from '../../src/http/buffered-bodies.js'
import { eventually } from '../helpers/wait.js'
import { serve } from './rig.js'

async function serveEcho(budget = new BodyBudget(1_000_000), admit: () => void = () => {}): Promise<string> {
  return serve(app => {
    app.register(async scope => {
      scope.addHook('onRequest', async () => admit())
      const senderOf = ({ headers }: FastifyRequest): BodySender => ({
        address: String(headers['x-from'] ?? '192.0.2.1'),
      })
      bufferBodies(scope, { limit: 1000, budget, senderOf })
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

  it.each([
    ['gzip', gzipSync],
    ['x-gzip', gzipSync],
    ['GZIP', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
    ['identity', (bytes: Buffer) => bytes],
  ])('is decoded where it is encoded: %s', async (encoding, encode) => {
    const budget = new BodyBudget(2000)
    const url = await serveEcho(budget)
    const bytes = Buffer.from('x'.repeat(999))
    const headers = { 'content-encoding': encoding }
    const response = await fetch(`${url}/v1/echo`, { method: 'POST', body: encode(bytes), headers })
    expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true)
    await eventually(() => budget.used === 0)
  })

  it.each([
    ['compress', 'x'],
    ['zstd', 'x'],
    ['gzip, br', gzipSync('x')],
    ['toString', 'x'],
  ])('is refused with 415 where nobody can decode it: %s', async (encoding, body) => {
    const url = await serveEcho()
    const headers = { 'content-encoding': encoding }
    const response = await fetch(`${url}/v1/echo`, { method: 'POST', body, headers })
    expect([response.status, response.headers.get('accept-encoding')]).toEqual([415, 'gzip, deflate, br'])
    expect(await response.json()).toMatchObject({ reason: 'unsupported-encoding' })
  })

  it.each([
    ['no gzip', 'gzip', Buffer.from('no gzip'), 400, 'bad-request'],
    ['half of it', 'gzip', gzipSync('x'.repeat(500)).subarray(0, 15), 400, 'bad-request'],
    ['no brotli', 'br', Buffer.from('no brotli'), 400, 'bad-request'],
    ['too much when it is decoded', 'gzip', gzipSync(Buffer.alloc(1001)), 413, 'body-too-large'],
    ['a bomb', 'gzip', gzipSync(Buffer.alloc(500_000)), 413, 'body-too-large'],
    ['a bomb of brotli', 'br', brotliCompressSync(Buffer.alloc(50_000_000)), 413, 'body-too-large'],
  ])('is refused where it is %s', async (_what, encoding, body, status, reason) => {
    const budget = new BodyBudget(2000)
    const url = await serveEcho(budget)
    const headers = { 'content-encoding': encoding }
    const response = await fetch(`${url}/v1/echo`, { method: 'POST', body, headers })
    expect([response.status, await response.json()]).toMatchObject([status, { reason }])
    await eventually(() => budget.used === 0)
  })

  it('counts until it is there or its client has left; a network has half of all, and others find room', async () => {
    const budget = new BodyBudget(2000)
    const url = await serveEcho(budget)
    const slow = net.connect(Number(new URL(url).port), '127.0.0.1')
    onTestFinished(() => void slow.destroy())
    await once(slow, 'connect')
    slow.write('POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 999\r\n\r\n')
    slow.write('x'.repeat(500))
    await eventually(() => budget.used === 500)
    const post = (from: string): Promise<Response> =>
      fetch(`${url}/v1/echo`, { method: 'POST', body: 'x'.repeat(700), headers: { 'x-from': from } })
    const refused = await post('192.0.2.1')
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '1'])
    expect(await refused.json()).toMatchObject({ reason: 'bodies-too-many-from-address' })
    expect((await post('192.0.2.2')).status).toBe(200)
    await eventually(() => budget.used === 500)
    slow.destroy()
    await eventually(() => budget.used === 0)
    expect((await post('192.0.2.1')).status).toBe(200)
    await eventually(() => budget.used === 0)
  })

  it('of somebody who is not let in is not kept', async () => {
    const budget = new BodyBudget(1200)
    const url = await serveEcho(budget, () => {
      throw new GatewayError('identity-required')
    })
    const response = await fetch(`${url}/v1/echo`, { method: 'POST', body: 'x'.repeat(900) })
    expect([response.status, budget.used]).toEqual([401, 0])
  })
})
