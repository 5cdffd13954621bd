import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import fc from 'fast-check'
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { type ClientOptions, WebSocket, WebSocketServer } from 'ws'
import { compileClientResolver } from '../../src/access/client-address.js'
import { compileOrigins } from '../../src/access/origins.js'
import type { Metrics } from '../../src/base/metrics.js'
import { UnreadResponses } from '../../src/http/unread-responses.js'
import { createApp } from '../../src/server/app.js'
import { registerEndpointHints } from '../../src/server/pages.js'
import { PipelinedRequests } from '../../src/server/pipelined-requests.js'
import { StreamQueue } from '../../src/server/stream-queue.js'
import { startHttp, startHttps, type WebServerOptions } from '../../src/server/web-servers.js'
import { eventually } from '../helpers/wait.js'
import {
  closing,
  connected,
  exchange,
  portOf,
  received,
  refusals,
  requestLimits,
  testRouter,
  writeCertificate,
} from './rig.js'

let pem: { cert: string; key: string }
beforeAll(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-listen-'))
  pem = (await writeCertificate(directory)).pem
  await rm(directory, { recursive: true })
})

/**
 * Both web servers with one app, and a WebSocket endpoint at /mqtt that echoes.
 *
 * @param maxUntaken of complete answers, in bytes
 */
async function start({ maxUntaken, ...changed }: Partial<WebServerOptions> & { maxUntaken?: number } = {}) {
  const endpoint = new WebSocketServer({ noServer: true })
  endpoint.on('connection', socket => socket.on('message', data => socket.send(data)))
  const rig = testRouter({
    routes: [
      {
        matches: path => path === '/mqtt',
        allowsOrigin: compileOrigins(['same-origin']),
        accept: ({ request, socket, head }) =>
          endpoint.handleUpgrade(request, socket, head, ws => endpoint.emit('connection', ws)),
      },
    ],
  })
  const app = createApp({
    resolveClient: compileClientResolver([]),
    limits: requestLimits,
    log: rig.log,
    metrics: rig.metrics,
  })
  registerEndpointHints(app, path => rig.router.matches(path))
  app.get('/hello', async request => `hello over ${request.raw.httpVersion}\n`)
  app.get('/stall', () => new Promise(() => {}))
  app.get('/large', (_request, reply) => {
    reply.hijack()
    reply.raw.end(Buffer.alloc(500_000))
  })
  const made = { count: 0 }
  app.get('/vast', (_request, reply) => {
    made.count += 1
    reply.hijack()
    reply.raw.end(Buffer.alloc(20_000_000))
  })
  await app.ready()
  onTestFinished(() => app.close())
  const options: WebServerOptions = {
    app,
    onUpgrade: (...event) => rig.router.handle(...event),
    host: '127.0.0.1',
    port: 0,
    maxConnections: 100,
    limits: requestLimits,
    unreadResponses: new UnreadResponses({ ...rig, ...(maxUntaken !== undefined && { max: maxUntaken }) }),
    pipelined: new PipelinedRequests(rig),
    streams: new StreamQueue(),
    log: rig.log,
    metrics: rig.metrics,
    ...changed,
  }
  const certificates = { secureContext: { ...pem, minVersion: 'TLSv1.2' as const }, serve: () => {} }
  const http = closing(await startHttp(options))
  const https = closing(await startHttps({ ...options, certificates }))
  return { ...rig, made, http, https, httpPort: portOf(http), httpsPort: portOf(https) }
}

async function secure(port: number, ALPNProtocols?: string[]): Promise<TLSSocket> {
  const raw = await connected(port)
  const socket = connectTls({
    socket: raw,
    servername: 'localhost',
    ca: pem.cert,
    ...(ALPNProtocols && { ALPNProtocols }),
  })
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  await once(socket, 'secureConnect')
  return socket
}

function http2(port: number): ClientHttp2Session {
  const session = connectHttp2(`https://localhost:${port}`, { ca: pem.cert })
  session.on('error', () => {})
  onTestFinished(() => session.destroy())
  return session
}

async function ask(session: ClientHttp2Session, path: string): Promise<{ status: unknown; body: string }> {
  const stream = session.request({ ':path': path })
  const [headers] = await once(stream, 'response')
  let body = ''
  for await (const chunk of stream.setEncoding('utf8')) body += chunk
  return { status: headers[':status'], body }
}

async function echo(url: string, options: ClientOptions = {}): Promise<string> {
  const socket = new WebSocket(url, { ca: pem.cert, ...options })
  onTestFinished(() => socket.terminate())
  await once(socket, 'open')
  socket.send('ping')
  const [data] = await once(socket, 'message')
  return String(data)
}

const get = (path: string, ...headers: string[]): string =>
  [`GET ${path} HTTP/1.1`, 'Host: localhost', ...headers, '', ''].join('\r\n')

describe('the TLS port', () => {
  it('speaks HTTP/2, HTTP/1.1 and WebSocket side by side', async () => {
    const { httpsPort } = await start()
    const session = http2(httpsPort)
    expect(await ask(session, '/hello')).toEqual({ status: 200, body: 'hello over 2.0\n' })
    expect(await echo(`wss://localhost:${httpsPort}/mqtt`)).toBe('ping')
    const socket = await secure(httpsPort, ['http/1.1'])
    socket.write(get('/hello', 'Connection: close'))
    socket.once('end', () => socket.end())
    expect(await received(socket)).toMatch(/^HTTP\/1\.1 200 OK.*hello over 1\.1\n$/s)
    expect(await ask(session, '/hello')).toMatchObject({ status: 200 })
  })

  it('speaks HTTP/1.1 to a client without ALPN', async () => {
    const { httpsPort } = await start()
    const socket = await secure(httpsPort)
    socket.write(get('/hello', 'Connection: close'))
    socket.once('end', () => socket.end())
    expect(await received(socket)).toMatch(/^HTTP\/1\.1 200 OK/)
  })

  it('answers an ordinary request to an endpoint with 426 in both versions', async () => {
    const { httpsPort, httpPort } = await start()
    expect(await ask(http2(httpsPort), '/mqtt?x')).toMatchObject({
      status: 426,
      body: expect.stringMatching(/WebSocket endpoint/),
    })
    expect(await exchange(httpPort, get('/mqtt', 'Connection: close'))).toMatch(
      /^HTTP\/1\.1 426 Upgrade Required\r\n.*upgrade: websocket\r\n.*This is a WebSocket endpoint/is,
    )
  })

  it('refuses CONNECT, plain and extended', async () => {
    const { httpsPort, httpPort } = await start()
    const session = http2(httpsPort)
    await once(session, 'remoteSettings')
    expect(session.remoteSettings.enableConnectProtocol).toBeFalsy()
    const plain = session.request({ ':method': 'CONNECT', ':authority': 'a.example:443' })
    const [headers] = await once(plain, 'response')
    expect(headers[':status']).toBe(405)
    expect(await exchange(httpPort, 'CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n')).toBe('')
    expect(await ask(session, '/hello')).toMatchObject({ status: 200 })
  })

  it('passes the end of one direction of an upgraded connection on, without the other', async () => {
    const { httpsPort, router } = await start()
    const upgraded = new Promise<Duplex>(resolve => {
      router.handle = (_request, socket) => resolve(socket)
    })
    const client = await secure(httpsPort, ['http/1.1'])
    client.write(get('/mqtt', 'Connection: Upgrade', 'Upgrade: websocket'))
    const socket = await upgraded
    client.end('last words')
    let heard = ''
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) heard += chunk
    expect(heard).toBe('last words')
    socket.end('and the answer')
    expect(await received(client)).toBe('and the answer')
  })

  it('lets go of an HTTP/2 connection when its client has ended, and of one that goes silent', async () => {
    const { httpsPort, https } = await start({ idleTimeout: 100 })
    const ended = await secure(httpsPort, ['h2'])
    ended.end('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0')
    await received(ended)
    const silent = http2(httpsPort)
    await once(silent, 'close')
    await https.close()
  })

  it('ends a connection whose HTTP/2 is none, and goes on', async () => {
    const { httpsPort } = await start()
    const socket = await secure(httpsPort, ['h2'])
    socket.once('end', () => socket.end())
    socket.write('GET / HTTP/1.1\r\n\r\n'.repeat(10))
    await received(socket)
    expect(await ask(http2(httpsPort), '/hello')).toMatchObject({ status: 200 })
  })

  it('refuses what is no TLS, or an older one, and goes on', async () => {
    const { httpsPort, metrics } = await start()
    await exchange(httpsPort, get('/hello'))
    const old = connectTls({
      port: httpsPort,
      host: '127.0.0.1',
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      ciphers: 'DEFAULT@SECLEVEL=0',
      rejectUnauthorized: false,
    })
    await expect(once(old, 'secureConnect')).rejects.toThrow()
    await eventually(async () => (await refusals(metrics, 'bad-request')) === 2)
    expect(await ask(http2(httpsPort), '/hello')).toMatchObject({ status: 200 })
  })

  it('does not wait for a handshake or a request for ever', async () => {
    const limits = { ...requestLimits, handshakeTimeout: 200 }
    const { httpsPort, metrics } = await start({ limits })
    await exchange(httpsPort, '')
    const late = await secure(httpsPort, ['http/1.1'])
    late.once('end', () => late.end())
    late.write('GET /hello HTTP/1.1\r\nHost: loc')
    expect(await received(late)).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n/)
    expect(await refusals(metrics, 'handshake-timeout')).toBe(2)
  })

  it('refuses headers that are too large in both versions', async () => {
    const { httpsPort, metrics } = await start()
    const socket = await secure(httpsPort, ['http/1.1'])
    socket.once('end', () => socket.end())
    socket.write(get('/hello', `X: ${'x'.repeat(200_000)}`))
    expect(await received(socket)).toMatch(/^HTTP\/1\.1 431 .*The request headers are too large\n$/s)
    expect(await refusals(metrics, 'headers-too-large')).toBe(1)
    const session = http2(httpsPort)
    // The limit holds from the moment that the client knows it.
    await once(session, 'remoteSettings')
    const stream = session.request({ ':path': '/hello', x: 'x'.repeat(60_000) })
    await expect(once(stream, 'response')).rejects.toThrow()
    expect(await ask(http2(httpsPort), '/hello')).toMatchObject({ status: 200 })
  })
})

describe('the plain port', () => {
  it('leads handshakes to their endpoint and refuses the others', async () => {
    const { httpPort } = await start()
    expect(await echo(`ws://127.0.0.1:${httpPort}/mqtt`)).toBe('ping')
    expect(await echo(`ws://127.0.0.1:${httpPort}/mqtt`, { origin: `http://127.0.0.1:${httpPort}` })).toBe('ping')
    await expect(echo(`ws://127.0.0.1:${httpPort}/mqtt`, { origin: 'https://evil.example' })).rejects.toThrow(/403/)
    await expect(echo(`ws://127.0.0.1:${httpPort}/other`)).rejects.toThrow(/404/)
  })

  it('does not end an upgraded connection that is idle', async () => {
    const { httpPort } = await start({ idleTimeout: 50 })
    const socket = new WebSocket(`ws://127.0.0.1:${httpPort}/mqtt`)
    onTestFinished(() => socket.terminate())
    await once(socket, 'open')
    expect(await exchange(httpPort, get('/stall'))).toBe('')
    socket.send('still here')
    expect(String((await once(socket, 'message'))[0])).toBe('still here')
  })

  it.each([
    ['h2c', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA'],
    ['TLS', 'Connection: Upgrade', 'Upgrade: TLS/1.2'],
  ])('answers a request that would upgrade to %s as any other', async (_name, ...headers) => {
    const { httpPort } = await start()
    expect(await exchange(httpPort, get('/hello', ...headers))).toMatch(/^HTTP\/1\.1 200 OK.*hello over 1\.1\n$/s)
    expect(await exchange(httpPort, get('/nothing', ...headers))).toMatch(/^HTTP\/1\.1 404 Not Found\r\n/)
  })

  it('refuses such a request with a body', async () => {
    const { httpPort } = await start()
    const post = [
      'POST /hello HTTP/1.1',
      'Host: localhost',
      'Connection: Upgrade',
      'Upgrade: h2c',
      'Content-Length: 2',
      '',
      'hi',
    ]
    expect(await exchange(httpPort, post.join('\r\n'))).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
  })

  it.each([
    ['no HTTP at all', '\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0', 400],
    ['a header without a name', 'GET / HTTP/1.1\r\n: x\r\n\r\n', 400],
    ['a folded header', 'GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\x00\r\n\r\n', 400],
    ['two lengths', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400],
    [
      'a length and chunks',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
      400,
    ],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400],
    ['HTTP/2 without TLS', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    ['large headers', get('/', `X: ${'x'.repeat(200_000)}`), 431],
    ['a long path', get(`/${'x'.repeat(200_000)}`), 431],
    ['a broken escape in the path', get('/%zz', 'Connection: close'), 400],
    ['an unknown method', 'BREW / HTTP/1.1\r\nHost: a\r\n\r\n', 400],
  ])('answers %s and goes on', async (_what, bytes, status) => {
    const { httpPort } = await start()
    const answer = await exchange(httpPort, Buffer.from(bytes, 'latin1'))
    expect(answer.startsWith(`HTTP/1.1 ${status} `) || (status === 400 && answer === '')).toBe(true)
    expect(await exchange(httpPort, get('/hello', 'Connection: close'))).toMatch(/^HTTP\/1\.1 200 /)
  })

  it.each([
    ['nothing', ''],
    ['half a request', 'GET / HTTP/1.1\r\nHost: a\r\nX-'],
    ['half a body', 'POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf'],
  ])('does not wait for ever for a client that sends %s', async (_what, bytes) => {
    const { httpPort, metrics } = await start({ limits: { ...requestLimits, handshakeTimeout: 200, bodyTimeout: 200 } })
    expect(await exchange(httpPort, bytes)).toMatch(/^HTTP\/1\.1 (408 Request Timeout|405)/)
    if (!bytes.startsWith('POST')) expect(await refusals(metrics, 'handshake-timeout')).toBe(1)
  })

  it('does not wait for a client that sends a byte now and then', async () => {
    const { httpPort } = await start({ limits: { ...requestLimits, handshakeTimeout: 200, bodyTimeout: 200 } })
    const socket = await connected(httpPort)
    socket.once('end', () => socket.end())
    socket.write('GET / HTTP/1.1\r\nHost: a\r\nX: ')
    const dripping = setInterval(() => socket.writable && socket.write('x'), 20)
    const answer = await received(socket)
    clearInterval(dripping)
    expect(answer).toMatch(/^HTTP\/1\.1 408 /)
  })

  it('is there after whatever a client sends', async () => {
    const { httpPort, httpsPort } = await start()
    const valid = get(
      '/mqtt?x=1',
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Origin: null',
    )
    const change = fc.record({ at: fc.nat(valid.length), remove: fc.nat(8), insert: fc.uint8Array({ maxLength: 8 }) })
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 4 }), fc.boolean(), async (changes, encrypted) => {
        let bytes = Buffer.from(valid)
        for (const { at, remove, insert } of changes) {
          bytes = Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + remove)])
        }
        const socket = encrypted ? await secure(httpsPort, ['http/1.1']) : await connected(httpPort)
        const ended = received(socket)
        socket.end(bytes)
        await ended
      }),
      { numRuns: 300 },
    )
    expect(await exchange(httpPort, get('/hello', 'Connection: close'))).toMatch(/^HTTP\/1\.1 200 /)
    expect(await ask(http2(httpsPort), '/hello')).toMatchObject({ status: 200 })
  })

  it('keeps no rest of a request out of an answer that has begun', async () => {
    const { httpPort } = await start()
    const answer = await exchange(httpPort, `${get('/hello')}garbage\r\n\r\n`)
    expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1)
  })
})

describe('answers that their clients do not take', () => {
  const cutOff = async ({ registry }: Metrics): Promise<number | undefined> => {
    const metric = await registry.getSingleMetric('mqway_endings_total')?.get()
    return metric?.values.find(({ labels }) => labels['reason'] === 'client-too-slow')?.value
  }

  it('are cut off over HTTP/2, the oldest first, where all together are too much', async () => {
    const { httpsPort, metrics } = await start({ maxUntaken: 2_250_000 })
    const session = connectHttp2(`https://localhost:${httpsPort}`, {
      ca: pem.cert,
      settings: { initialWindowSize: 0 },
    })
    onTestFinished(() => session.destroy())
    const streams = Array.from({ length: 10 }, () => session.request({ ':path': '/large' }))
    await Promise.all(streams.slice(0, 6).map(stream => once(stream, 'close')))
    expect(streams.map(({ closed }) => closed)).toEqual([...Array(6).fill(true), ...Array(4).fill(false)])
    expect(await ask(http2(httpsPort), '/hello')).toMatchObject({ status: 200 })
    expect(await cutOff(metrics)).toBe(6)
  })

  it('are cut off with their connection over HTTP/1.1', async () => {
    const { httpPort, metrics } = await start({ maxUntaken: 50_000 })
    const greedy = await Promise.all(Array.from({ length: 10 }, () => connected(httpPort)))
    for (const socket of greedy) socket.pause().write(get('/vast'))
    await eventually(async () => (await cutOff(metrics)) === 10)
    await Promise.all(greedy.map(socket => once(socket.resume().end(), 'close')))
    expect(greedy.every(({ bytesRead }) => bytesRead < 20_000_000)).toBe(true)
  })

  it('are made one after the other where a client did not wait for those before', async () => {
    const { httpPort, metrics, made } = await start({ maxUntaken: 50_000_000 })
    const socket = await connected(httpPort)
    socket.pause().write(get('/vast').repeat(50))
    await eventually(() => made.count === 1)
    expect(await exchange(httpPort, get('/hello', 'Connection: close'))).toMatch(/^HTTP\/1\.1 200 /)
    expect(made.count).toBe(1)
    expect(await cutOff(metrics)).toBe(0)
    const gone = once(socket, 'close')
    socket.destroy()
    await gone
  })
})

describe('closing', () => {
  it('lets answers that have begun finish, ends idle connections, and takes no new ones', async () => {
    const { http, https, httpPort, httpsPort } = await start()
    const session = http2(httpsPort)
    await ask(session, '/hello')
    const idle = await connected(httpPort)
    idle.write(get('/hello'))
    await once(idle, 'data')
    await Promise.all([http.close(), https.close(), once(session, 'close'), once(idle, 'end').then(() => idle.end())])
    const late = httpRequest({ port: httpPort, host: '127.0.0.1' })
    await expect(once(late, 'response')).rejects.toThrow(/ECONNREFUSED/)
  })

  it('does not keep a connection whose last answer came after the close', async () => {
    const answers: ((text: string) => void)[] = []
    const app: WebServerOptions['app'] = {
      routing: (_request, response) => void answers.push(text => response.end(text)),
    }
    const { http, httpPort } = await start({ app })
    const client = await connected(httpPort)
    client.once('end', () => client.end())
    const answer = received(client)
    client.write(get('/'))
    await eventually(() => answers.length === 1)
    const closed = http.close()
    const began = performance.now()
    answers[0]?.('the last one')
    expect(await answer).toMatch(/the last one$/)
    await closed
    // Node itself would keep it for 5 s.
    expect(performance.now() - began).toBeLessThan(4000)
  })

  it('can be forced while an answer is waited for', async () => {
    const { http, httpPort } = await start()
    const stalled = await connected(httpPort)
    stalled.write(get('/stall'))
    await eventually(() => stalled.bytesWritten > 0)
    const closed = http.close()
    http.destroyConnections()
    await closed
  })
})
