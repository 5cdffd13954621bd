import { once } from 'node:events'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { compileClientResolver } from '../../src/access/client-address.js'
import { createApp } from '../../src/server/app.js'
import { registerEndpointHints, registerPages } from '../../src/server/pages.js'
import { exchange, recordingLog, requestLimits, takenPort, temporaryDirectory, testMetrics } from './rig.js'

/** Serves the built-in pages, or a directory. */
async function start(directory?: string) {
  const { log, lines, line } = recordingLog()
  const app = createApp({
    resolveClient: compileClientResolver([]),
    limits: requestLimits,
    log,
    metrics: testMetrics(),
  })
  await registerPages(app, { directory, resolveClient: compileClientResolver([]), log })
  registerEndpointHints(app, path => path.startsWith('/sub/page') || path.startsWith('/sub/mqtt'))
  app.get('/broken', () => {
    throw new Error('secret detail')
  })
  await app.ready()
  const server = createServer((request, response) => app.routing(request, response)).listen(0, '127.0.0.1')
  onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await app.close()
  })
  await once(server, 'listening')
  const port = takenPort(server.address())
  const get = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${port}${path}`, init)
  return { get, port, lines, line }
}

/** A directory with something in it, and something outside that links in it lead to. */
async function site(): Promise<string> {
  const outside = await temporaryDirectory()
  const root = join(outside, 'site')
  await mkdir(join(root, 'sub'), { recursive: true })
  await mkdir(join(root, '.git'))
  await Promise.all([
    writeFile(join(outside, 'secret.txt'), 'secret'),
    writeFile(join(root, 'index.html'), '<p>mine'),
    writeFile(join(root, 'a.txt'), '0123456789'),
    writeFile(join(root, 'ä b.txt'), 'umlaut'),
    writeFile(join(root, ';&=.txt'), 'reserved'),
    writeFile(join(root, 'unknown.xyzzy'), 'unknown'),
    writeFile(join(root, 'empty.js'), ''),
    writeFile(join(root, '.env'), 'secret'),
    writeFile(join(root, '.git', 'config'), 'secret'),
    writeFile(join(root, 'sub', 'page.html'), 'sub'),
    symlink('../secret.txt', join(root, 'out.txt')),
    symlink('..', join(root, 'up')),
    symlink('a.txt', join(root, 'in.txt')),
  ])
  return root
}

describe('the built-in pages', () => {
  it('come with a strict policy', async () => {
    const { get } = await start()
    const answer = await get('/')
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(answer.headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'self';/)
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(answer.headers.get('referrer-policy')).toBe('no-referrer')
    expect(answer.headers.get('cache-control')).toBe('no-cache')
    expect(await answer.text()).toMatch(/^<!doctype html>/i)
  })

  it.each(['/vendor/paho-mqtt.js', '/vendor/paho-mqtt.min.js'])('bring Paho along as %s', async path => {
    const { get } = await start()
    const answer = await get(path)
    expect(answer.headers.get('content-type')).toMatch(/^(text|application)\/javascript; charset=utf-8$/)
    expect(await answer.text()).toContain('Paho')
    expect((await get('/vendor/package.json')).status).toBe(404)
  })
})

describe('MQTT.js', () => {
  it.each([
    ['/vendor/mqtt.js', 'mqtt'],
    ['/vendor/mqtt.min.js', 'var mqtt='],
    ['/vendor/mqtt.esm.js', 'export'],
  ])('is at %s', async (path, text) => {
    const { get } = await start()
    const answer = await get(path)
    expect(answer.headers.get('content-type')).toMatch(/^(text|application)\/javascript; charset=utf-8$/)
    expect(await answer.text()).toContain(text)
  })
})

describe('a directory', () => {
  it('is served instead, with its own idea of a policy', async () => {
    const { get } = await start(await site())
    const answer = await get('/')
    expect(await answer.text()).toBe('<p>mine')
    expect(answer.headers.has('content-security-policy')).toBe(false)
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
  })

  it.each([
    ['/a.txt', 'text/plain; charset=utf-8', '0123456789'],
    ['/a.txt?query=1', 'text/plain; charset=utf-8', '0123456789'],
    ['/%C3%A4%20b.txt', 'text/plain; charset=utf-8', 'umlaut'],
    ['/%3B&%3D.txt', 'text/plain; charset=utf-8', 'reserved'],
    ['/;%26=.txt', 'text/plain; charset=utf-8', 'reserved'],
    ['/unknown.xyzzy', 'application/octet-stream', 'unknown'],
    ['/in.txt', 'text/plain; charset=utf-8', '0123456789'],
    ['/sub/page.html', 'text/html; charset=utf-8', 'sub'],
    ['/empty.js', 'application/javascript; charset=utf-8', ''],
  ])('has %s', async (path, type, body) => {
    const { get } = await start(await site())
    const answer = await get(path)
    expect([answer.status, answer.headers.get('content-type'), await answer.text()]).toEqual([200, type, body])
  })

  it('is asked about again with the ETag and the date that it gave', async () => {
    const { get, port } = await start(await site())
    const { headers } = await get('/a.txt')
    for (const condition of [
      `If-None-Match: ${headers.get('etag')}`,
      `If-Modified-Since: ${headers.get('last-modified')}`,
    ]) {
      // Not with fetch, which would ask for a fresh answer beside it.
      const request = ['GET /a.txt HTTP/1.1', 'Host: localhost', 'Connection: close', condition, '', '']
      const again = await exchange(port, request.join('\r\n'))
      expect(again).toMatch(/^HTTP\/1\.1 304 Not Modified\r\n.*\r\ncache-control: no-cache\r\n/is)
      expect(again).toMatch(/\r\n\r\n$/)
    }
    expect((await get('/a.txt', { headers: { 'if-match': '"other"' } })).status).toBe(412)
  })

  it.each([
    ['bytes=2-4', 206, '234', 'bytes 2-4/10'],
    ['bytes=-2', 206, '89', 'bytes 8-9/10'],
    ['bytes=8-', 206, '89', 'bytes 8-9/10'],
    ['bytes=x', 416, 'The requested range is beyond the end of the file.\n', 'bytes */10'],
    ['bytes=0-1,3-4', 200, '0123456789', null],
    ['bytes=10-', 416, 'The requested range is beyond the end of the file.\n', 'bytes */10'],
  ])('gives the range %s', async (range, status, body, contentRange) => {
    const { get } = await start(await site())
    const answer = await get('/a.txt', { headers: { range } })
    expect([answer.status, await answer.text(), answer.headers.get('content-range')]).toEqual([
      status,
      body,
      contentRange,
    ])
  })

  it('says to HEAD what it would say to GET', async () => {
    const { get } = await start(await site())
    const [head, full] = [await get('/a.txt', { method: 'HEAD' }), await get('/a.txt')]
    expect(head.headers.get('content-length')).toBe('10')
    for (const name of ['etag', 'content-type', 'last-modified']) {
      expect(head.headers.get(name)).toBe(full.headers.get(name))
    }
    expect(await head.text()).toBe('')
  })

  it.each([
    '/nothing',
    '/.env',
    '/.git/config',
    '/%2eenv',
    '/sub/../.env',
    '/out.txt',
    '/up/secret.txt',
    '/up/',
    '/../secret.txt',
    '/..%2fsecret.txt',
    '/%2e%2e/secret.txt',
    '/%2e%2e%2fsecret.txt',
    '/..%5csecret.txt',
    '/..\\secret.txt',
    '/sub/..%2f..%2fsecret.txt',
    '/sub/%2e%2e/%2e%2e/secret.txt',
    '/....//secret.txt',
    '//secret.txt',
    '/./a.txt',
    '/sub//page.html',
    '/a.txt%00',
    '/a.txt%00.html',
    '/out.txt%2f',
    '/a.txt/',
    '/%252e%252e/secret.txt',
    `/${'x'.repeat(5000)}`,
    '/%c0%ae%c0%ae/secret.txt',
    '/%',
    '/vendor/../../secret.txt',
    'http://localhost/../secret.txt',
  ])('does not have %s', async path => {
    const { port } = await start(await site())
    const answer = await exchange(port, `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 (404 Not Found|400 Bad Request)\r\n/)
    expect(answer).not.toMatch(/\r\n\r\n.*(secret|0123456789)/s)
    expect(answer).toMatch(/x-content-type-options: nosniff/i)
  })

  it('is served below an endpoint that is a prefix, and what is not there is told to be one', async () => {
    const { get } = await start(await site())
    expect(await (await get('/sub/page.html')).text()).toBe('sub')
    for (const method of ['GET', 'POST']) {
      const answer = await get('/sub/mqtt?token=x', { method })
      expect([answer.status, answer.headers.get('upgrade')]).toEqual([426, 'websocket'])
      expect(await answer.text()).toMatch(/^This is a WebSocket endpoint/)
    }
  })

  it('has the client for pages without MQTT, too', async () => {
    const { get } = await start(await site())
    const answer = await get('/vendor/mqway.js')
    expect(answer.headers.get('content-type')).toContain('javascript')
    expect(await answer.text()).toBe(await (await (await start()).get('/mqway.js')).text())
  })

  it('has its own Paho when it has one', async () => {
    const root = await site()
    await mkdir(join(root, 'vendor'))
    await writeFile(join(root, 'vendor', 'paho-mqtt.js'), 'mine')
    const { get } = await start(root)
    expect(await (await get('/vendor/paho-mqtt.js')).text()).toBe('mine')
    expect(await (await get('/vendor/paho-mqtt.min.js')).text()).toContain('Paho')
  })

  it.each([
    ['is not there', async (root: string) => join(root, 'nothing'), /--public .*nothing: does not exist/],
    ['is a file', async (root: string) => join(root, 'a.txt'), /--public .*a\.txt: is no directory/],
  ])('that %s is an error that says so', async (_case, path, message) => {
    const { log } = recordingLog()
    const app = createApp({
      resolveClient: compileClientResolver([]),
      limits: requestLimits,
      log,
      metrics: testMetrics(),
    })
    const directory = await path(await site())
    await expect(
      registerPages(app, { directory, resolveClient: compileClientResolver([]), log }),
    ).rejects.toMatchObject({
      name: 'StartError',
      message: expect.stringMatching(message),
    })
  })
})

describe('what is wrong', () => {
  it.each([
    ['GET', '/nothing', 404, 'There is nothing at this address.\n'],
    ['POST', '/a.txt', 405, 'What is at this address can only be read.\n'],
    ['GET', '/broken', 500, 'Something went wrong inside the gateway. Its log says what.\n'],
    ['GET', '/%zz', 400, 'The request could not be understood.\n'],
  ])('with %s %s is said in plain text, and as a page to a browser', async (method, path, status, sentence) => {
    const { get } = await start(await site())
    const plain = await get(path, { method })
    expect([plain.status, await plain.text()]).toEqual([status, sentence])
    const page = await get(path, { method, headers: { accept: 'text/html,*/*;q=0.8' } })
    expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'/)
    expect(await page.text()).toContain(sentence.trim())
    if (status === 405) expect(page.headers.get('allow')).toBe('GET, HEAD')
  })

  it('is in the log, without what the query holds', async () => {
    const { get, line, lines } = await start(await site())
    await get('/broken?token=s3cret', { headers: { cookie: 's3cret', authorization: 's3cret' } })
    expect(await line(/^A request failed/)).toMatchObject({ level: 50, path: '/broken', method: 'GET' })
    expect(await line(/^request$/)).toMatchObject({ level: 20, peer: '127.0.0.1', path: '/broken', status: 500 })
    await get('/%zz?token=s3cret')
    await get('/nothing?token=s3cret')
    await line(/^request$/)
    expect(JSON.stringify(lines)).not.toContain('s3cret')
  })
})
