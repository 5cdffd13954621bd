import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { Worker } from 'node:worker_threads'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { GatewayError } from '../../../src/base/errors.js'
import { createLog } from '../../../src/base/log.js'
import type { Broker } from '../../../src/broker/broker.js'
import { AddressBook, parseAddress } from '../../../src/broker/upstream/addresses.js'
import { createUpstream, type UpstreamOptions } from '../../../src/broker/upstream/upstream.js'
import { describeWith } from '../../helpers/requires.js'
import { eventually } from '../../helpers/wait.js'
import { somePeer } from '../embedded/mqtt-session.js'
import { makeCertificates, type TestCa } from './certificates.js'

const log = createLog({ level: 'silent', format: 'json' })
const closing: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

function upstream(options: Partial<UpstreamOptions> & Pick<UpstreamOptions, 'url'>): Broker {
  const broker = createUpstream({ balance: 'failover', connectTimeout: 2000, proxyProtocol: 'off', ...options }, log)
  closing.push(() => broker.close())
  return broker
}

/** A server on loopback; the sockets that came in are told one by one. */
async function serve(server: Server): Promise<{ port: number; sockets: Socket[]; close: () => Promise<void> }> {
  const sockets: Socket[] = []
  server.on('connection', socket => {
    socket.on('error', () => {})
    sockets.push(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = async (): Promise<void> => {
    if (!server.listening) return
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  }
  closing.push(close)
  return { port: (server.address() as AddressInfo).port, sockets, close }
}

/** The path of a Unix socket with room for two new connections at a time. */
async function crowdedSocket(): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'mqway-'))
  const path = join(directory, 'broker.sock')
  const server = createServer().listen({ path, backlog: 1 })
  await once(server, 'listening')
  closing.push(async () => {
    server.close()
    await once(server, 'close')
    rmSync(directory, { recursive: true })
  })
  return path
}

/** A port at which nothing listens. */
async function deadPort(): Promise<number> {
  const server = await serve(createServer())
  await server.close()
  return server.port
}

async function endingOf(broker: Broker): Promise<{ reason: string; why: string }> {
  const error = await broker.open(somePeer).then(
    () => undefined,
    (error: unknown) => error,
  )
  if (!(error instanceof GatewayError) || !(error.cause instanceof Error))
    throw new Error('it opened, or did not say why')
  return { reason: error.reason, why: error.cause.message }
}

describe('an upstream broker', () => {
  it('passes the end of each side through, and what follows on the other', async () => {
    const server = await serve(createServer({ allowHalfOpen: true }))
    const stream = await upstream({ url: `mqtt://127.0.0.1:${server.port}` }).open(somePeer)
    stream.end('question')
    while (server.sockets.length === 0) await new Promise(resolve => setImmediate(resolve))
    const [socket] = server.sockets
    if (!socket) throw new Error('no connection')
    socket.resume()
    await once(socket, 'end')
    socket.end('answer')
    expect(String((await once(stream, 'data'))[0])).toBe('answer')
    await once(stream, 'close')
  })

  it('says that nothing listens, with the address', async () => {
    const port = await deadPort()
    const { reason, why } = await endingOf(upstream({ url: `mqtt://127.0.0.1:${port}` }))
    expect(reason).toBe('broker-refused')
    expect(why).toMatch(new RegExp(`^mqtt://127.0.0.1:${port}: nothing listens there`))
  })

  it('says that there is no such Unix socket, or host', async () => {
    expect((await endingOf(upstream({ url: 'unix:/nowhere/broker.sock' }))).why).toContain('no such socket')
  })

  it('waits for a place where a Unix socket has room for a few new connections only', async () => {
    const broker = upstream({ url: `unix:${await crowdedSocket()}` })
    // Nobody takes them in between.
    const streams = await Promise.all(Array.from({ length: 20 }, () => broker.open(somePeer)))
    expect(streams).toHaveLength(20)
    for (const stream of streams) stream.destroy()
  })

  it('goes on to the second address at once where the first has no place for one more', async () => {
    const second = await serve(createServer())
    const broker = upstream({ url: [`unix:${await crowdedSocket()}`, `mqtt://127.0.0.1:${second.port}`] })
    const streams = await Promise.all(Array.from({ length: 20 }, () => broker.open(somePeer)))
    await eventually(() => second.sockets.length > 10)
    for (const stream of streams) stream.destroy()
  })

  it('says that there is no place where that stays so, however many try', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mqway-'))
    const path = join(directory, 'broker.sock')
    // Stopped, it takes no connection.
    const listening = `net.createServer().listen({ path: '${path}', backlog: 1 }, () => console.log('listening'))`
    const server = spawn(process.execPath, ['-e', listening])
    closing.push(async () => {
      const ended = once(server, 'close')
      server.kill('SIGKILL')
      await ended
      rmSync(directory, { recursive: true })
    })
    await once(server.stdout, 'data')
    server.kill('SIGSTOP')
    const broker = upstream({ url: `unix:${path}`, connectTimeout: 300 })
    const opened = await Promise.allSettled(Array.from({ length: 200 }, () => broker.open(somePeer)))
    const failed = opened.flatMap(result => (result.status === 'rejected' ? [result.reason] : []))
    expect(failed.length).toBeGreaterThan(150)
    expect(new Set(failed.map(ending => ending.reason))).toEqual(new Set(['broker-refused']))
    expect(failed[0].cause.message).toContain('more connections wait there than it has places for')
  })

  it.each(['v1', 'v2'] as const)(
    'fails alone when the broker closes before it has the PROXY header (%s)',
    async proxyProtocol => {
      const directory = mkdtempSync(join(tmpdir(), 'mqway-'))
      const path = join(directory, 'broker.sock')
      const closed = new Int32Array(new SharedArrayBuffer(4))
      const server = new Worker(new URL('fixtures/closing-broker.js', import.meta.url), {
        workerData: { path, closed: closed.buffer },
      })
      await once(server, 'message')
      const ending = endingOf(upstream({ url: `unix:${path}`, proxyProtocol }))
      // Nothing else happens in this thread meanwhile, so that it learns of its connection when that is closed already.
      Atomics.wait(closed, 0, 0)
      expect(await ending).toMatchObject({
        reason: 'broker-refused',
        why: expect.stringContaining('closed the connection'),
      })
      await server.terminate()
      rmSync(directory, { recursive: true })
    },
  )

  it('goes on to the second address, and remembers that the first one failed', async () => {
    const server = await serve(createServer())
    const dead = await deadPort()
    const broker = upstream({ url: [`mqtt://127.0.0.1:${dead}`, `mqtt://127.0.0.1:${server.port}`] })
    for (let count = 0; count < 3; count++) (await broker.open(somePeer)).destroy()
    expect(broker.name).toBe(`mqtt://127.0.0.1:${dead}, mqtt://127.0.0.1:${server.port}`)
  })

  it('sends the PROXY header first, also before TLS', async () => {
    const server = await serve(createServer())
    const stream = await upstream({ url: `mqtt://127.0.0.1:${server.port}`, proxyProtocol: 'v1' }).open(somePeer)
    stream.write('MQTT')
    while (server.sockets.length === 0) await new Promise(resolve => setImmediate(resolve))
    let text = ''
    server.sockets[0]?.on('data', chunk => {
      text += chunk
    })
    while (!text.endsWith('MQTT')) await new Promise(resolve => setImmediate(resolve))
    expect(text).toBe('PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\nMQTT')
    stream.destroy()
  })

  it('leaves no socket when it is closed in the middle of connecting', async () => {
    const server = await serve(createServer())
    const broker = upstream({ url: `mqtts://127.0.0.1:${server.port}` })
    const opening = broker.open(somePeer)
    while (server.sockets.length === 0) await new Promise(resolve => setImmediate(resolve))
    const [socket] = server.sockets
    const gone = new Promise(resolve => socket?.resume().once('close', resolve))
    await broker.close()
    await expect(opening).rejects.toMatchObject({ reason: 'shutting-down' })
    await gone
  })

  it('gives up on a silent address in time for the others, and says which was silent', async () => {
    // TCP connects, and then TLS gets no answer.
    const silent = await serve(createServer())
    const answering = await serve(createServer())
    const urls = [`mqtts://127.0.0.1:${silent.port}`, `mqtt://127.0.0.1:${answering.port}`]
    const stream = await upstream({ url: urls, connectTimeout: 400 }).open(somePeer)
    stream.destroy()
    const { reason, why } = await endingOf(upstream({ url: urls[0] ?? '', connectTimeout: 100 }))
    expect(reason).toBe('broker-timeout')
    expect(why).toBe(`${urls[0]}: no answer within 100 ms`)
    for (const socket of silent.sockets) if (!socket.closed) await once(socket.resume(), 'close')
  })
})

describeWith('openssl', 'an upstream broker over TLS', () => {
  let certificates: TestCa
  beforeAll(() => {
    certificates = makeCertificates()
  })
  afterAll(() => rmSync(certificates.directory, { recursive: true }))

  const tlsServer = (options: { requestCert?: boolean } = {}) =>
    serve(
      createTlsServer({
        cert: readFileSync(certificates.server.cert),
        key: readFileSync(certificates.server.key),
        ca: readFileSync(certificates.ca),
        ...options,
      }),
    )

  it('verifies the certificate, and says what is wrong with it', async () => {
    const { port } = await tlsServer()
    const url = `mqtts://127.0.0.1:${port}`
    expect(await endingOf(upstream({ url, servername: 'broker.test' }))).toMatchObject({
      reason: 'broker-refused',
      why: expect.stringContaining('unknown CA'),
    })
    expect((await endingOf(upstream({ url, ca: certificates.ca }))).why).toContain('certificate is for another name')
    const stream = await upstream({ url, ca: certificates.ca, servername: 'broker.test' }).open(somePeer)
    stream.destroy()
  })

  it('says that the other side does not speak TLS', async () => {
    const { port } = await serve(createServer(socket => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')))
    expect((await endingOf(upstream({ url: `mqtts://127.0.0.1:${port}` }))).why).toMatch(/does not speak TLS/)
  })

  it('reads its files at the start, and names the one that cannot be used', () => {
    const url = 'mqtts://127.0.0.1'
    expect(() => upstream({ url, ca: '/nowhere/ca.pem' })).toThrow(/^broker\.ca: cannot read \/nowhere\/ca\.pem/)
    const nonsense = join(certificates.directory, 'nonsense.pem')
    writeFileSync(nonsense, 'nonsense')
    expect(() => upstream({ url, cert: nonsense, key: nonsense })).toThrow(/nonsense\.pem cannot be used for TLS/)
  })
})

describe('addresses', () => {
  it.each([
    ['mqtt://host', { kind: 'tcp', host: 'host', port: 1883 }],
    ['mqtts://host/', { kind: 'tls', host: 'host', port: 8883 }],
    ['mqtt://[::1]:1884', { kind: 'tcp', host: '::1', port: 1884, name: 'mqtt://[::1]:1884' }],
    ['unix:/run/broker.sock', { kind: 'unix', path: '/run/broker.sock' }],
  ])('%s', (url, address) => {
    expect(parseAddress(url)).toMatchObject(address)
  })

  it('have no credentials in them, and an error does not repeat them', () => {
    expect(() => parseAddress('mqtt://user:secret@host')).toThrow(/^(?!.*secret).*must be mqtt:/)
  })

  const [a, b, c] = [parseAddress('mqtt://a'), parseAddress('mqtt://b'), parseAddress('mqtt://c')]

  it('in failover: the first, unless it has just failed', () => {
    let now = 0
    const book = new AddressBook([a, b, c], 'failover', () => now)
    book.failed(a)
    expect(book.order()).toEqual([b, c, a])
    now = 10_000
    expect(book.order()).toEqual([a, b, c])
    book.failed(a)
    book.connected(a)
    expect(book.order()).toEqual([a, b, c])
  })

  it('round-robin: each in turn', () => {
    const book = new AddressBook([a, b, c], 'round-robin')
    expect([1, 2, 3, 4].map(() => book.order()[0])).toEqual([a, b, c, a])
  })

  it('least-connections: the one with the fewest', () => {
    const book = new AddressBook([a, b], 'least-connections')
    const ended = book.connected(a)
    expect(book.order()).toEqual([b, a])
    book.connected(b)
    ended()
    expect(book.order()).toEqual([a, b])
  })
})
