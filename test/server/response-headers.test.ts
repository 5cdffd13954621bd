import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { get as httpsGet } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest'
import { configSchema } from '../../src/config/schema.js'
import { HeaderRules } from '../../src/http/header-rules.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'

const year = 'public, max-age=31536000, immutable'

let gateway: TestGateway
let root: string

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'mqway-headers-'))
  await mkdir(join(root, 'assets'))
  await writeFile(join(root, 'index.html'), '<p>page')
  await writeFile(join(root, 'assets', 'a.js'), 'export {}')
  gateway = await startTestGateway({
    public: root,
    headers: [
      {
        set: {
          'Strict-Transport-Security': 'max-age=31536000',
          'X-Frame-Options': 'DENY',
          'Content-Security-Policy': "default-src 'self'",
          'Referrer-Policy': 'same-origin',
          'Access-Control-Allow-Origin': '*',
        },
      },
      { pathPrefix: '/assets/', set: { 'cache-control': year } },
      { hosts: ['other.localhost'], set: { 'x-frame-options': 'SAMEORIGIN' } },
      { pathPrefix: '/v1/', set: { 'Cache-Control': year } },
    ],
  })
})

afterAll(async () => {
  await gateway.close()
  await rm(root, { recursive: true, force: true })
})

const get = (path: string, headers: Record<string, string> = {}) => fetch(`${gateway.urls.http}${path}`, { headers })

describe('configured response headers', () => {
  it('are on a page, in place of those of mqway', async () => {
    const { headers } = await get('/')
    expect(headers.get('x-frame-options')).toBe('DENY')
    expect(headers.get('referrer-policy')).toBe('same-origin')
    expect(headers.get('content-security-policy')).toBe("default-src 'self'")
    expect(headers.get('access-control-allow-origin')).toBe('*')
    expect(headers.get('cache-control')).toBe('no-cache')
    expect(headers.get('x-content-type-options')).toBe('nosniff')
  })

  it('set Cache-Control of a file by its path, also in a 304, and never of an error', async () => {
    const file = await get('/assets/a.js')
    expect(file.headers.get('cache-control')).toBe(year)
    const again = await get('/assets/a.js', {
      'if-none-match': file.headers.get('etag') ?? '',
      'cache-control': 'max-age=0',
    })
    expect([again.status, again.headers.get('cache-control')]).toEqual([304, year])
    const missing = await get('/assets/b.js')
    expect([missing.status, missing.headers.get('cache-control')]).toEqual([404, null])
    expect(missing.headers.get('x-frame-options')).toBe('DENY')
  })

  it('leave error pages the policy of mqway, which is stricter', async () => {
    const { headers } = await get('/missing')
    expect(headers.get('content-security-policy')).toMatch(/^default-src 'none'/)
    expect(headers.get('access-control-allow-origin')).toBeNull()
  })

  it('are on responses of the API, where mqway keeps its own Cache-Control and CORS headers', async () => {
    const paths = ['/v1/poll?topic=a&timeout=0', '/v1/poll?topic=%00', '/v1/openapi.json', '/v1/events']
    for (const path of paths) {
      const { headers, body } = await get(path)
      await body?.cancel()
      expect(headers.get('x-frame-options'), path).toBe('DENY')
      expect(headers.get('access-control-allow-origin'), path).toBeNull()
      expect(headers.get('cache-control'), path).not.toBe(year)
    }
  })

  it('are on an event stream', async () => {
    const response = await get('/v1/events?topic=a')
    expect(response.headers.get('x-frame-options')).toBe('DENY')
    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/)
    await response.body?.cancel()
  })

  it('are for certain hosts, of two rules the later one', async () => {
    const { hostname, port } = new URL(gateway.urls.https)
    const request = httpsGet({
      ...{ hostname, port, path: '/', rejectUnauthorized: false, agent: false },
      headers: { host: 'other.localhost' },
    })
    const [response] = await once(request, 'response')
    response.resume()
    expect(response.headers['x-frame-options']).toBe('SAMEORIGIN')
    expect(response.headers['strict-transport-security']).toBe('max-age=31536000')
  })

  it('announce HTTPS over TLS alone (RFC 6797 §7.2)', async () => {
    expect((await get('/')).headers.get('strict-transport-security')).toBeNull()
  })
})

test.each([
  ['/%C3%BC/x', { 'x-a': 'b' }],
  ['/ü/x', { 'x-a': 'b' }],
  ['/%C3%BC/../x', {}],
  ['/u/x', {}],
])('a rule with an encoded prefix gives %s %j', (path, headers) => {
  const rules = new HeaderRules([{ pathPrefix: '/%C3%BC/', set: { 'X-A': 'b' } }])
  expect(rules.forAll({ path, host: 'a.example', secure: false })).toEqual(headers)
})

describe('a header that is refused', () => {
  test.each([
    [{ 'Content-Length': '1' }, 'belongs to the connection or the length of a message'],
    [{ Connection: 'close' }, 'belongs to the connection or the length of a message'],
    [{ 'Content-Encoding': 'gzip' }, 'depends on the response'],
    [{ 'Sec-WebSocket-Protocol': 'mqtt' }, 'depends on the response'],
    [{ 'Set-Cookie': 'a=b' }, 'the same cookie'],
    [{ 'x-content-type-options': 'sniff' }, 'must be nosniff'],
    [{ 'X-A': 'a\r\nX-B: c' }, 'printable ASCII characters on one line'],
    [{ 'X-A': 'a ' }, 'printable ASCII characters on one line'],
    [{ 'X A': 'a' }, 'must be the name of a header'],
    [{ 'X-A': 'a', 'x-a': 'b' }, 'is set twice'],
    [{}, 'needs a header'],
  ])('%j: %s', (set, reason) => {
    const { error } = configSchema.safeParse({ headers: [{ set }] })
    expect(JSON.stringify(error?.issues)).toContain(reason)
  })

  test('two paths in one rule: needs one at most', () => {
    const { error } = configSchema.safeParse({ headers: [{ path: '/a', pathPrefix: '/b', set: { 'X-A': 'b' } }] })
    expect(JSON.stringify(error?.issues)).toContain('needs one of path')
  })
})
