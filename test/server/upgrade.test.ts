import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { compileClientResolver } from '../../src/access/client-address.js'
import { ConnectionLimits } from '../../src/access/limits.js'
import { compileOrigins } from '../../src/access/origins.js'
import { GatewayError } from '../../src/base/errors.js'
import { pathOf } from '../../src/http/request-target.js'
import type { Upgrade, UpgradeRoute } from '../../src/http/upgrade-route.js'
import { listen } from '../../src/server/listener.js'
import type { UpgradeRouterOptions } from '../../src/server/upgrade.js'
import { eventually } from '../helpers/wait.js'
import { closing, connected, exchange, portOf, received, refusals, testRouter } from './rig.js'

const handshake = (path: string, ...headers: string[]): string =>
  [`GET ${path} HTTP/1.1`, 'Host: localhost', ...valid, ...headers, '', ''].join('\r\n')

const valid = [
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
  'Sec-WebSocket-Version: 13',
]

/** An endpoint at `/mqtt` that keeps what it gets. */
function endpoint(changed: Partial<UpgradeRoute> = {}) {
  const upgrades: Upgrade[] = []
  const route: UpgradeRoute = {
    matches: path => path === '/mqtt',
    allowsOrigin: compileOrigins(['same-origin']),
    accept: upgrade => void upgrades.push(upgrade),
    ...changed,
  }
  return { route, upgrades }
}

async function start(options: Partial<UpgradeRouterOptions> = {}) {
  const rig = testRouter(options)
  const makeServer = () => createServer().on('upgrade', (...event) => rig.router.handle(...event))
  const listener = closing(
    await listen(makeServer, {
      purpose: 'http',
      host: '127.0.0.1',
      port: 0,
      maxConnections: 100,
      log: rig.log,
      metrics: rig.metrics,
    }),
  )
  return { ...rig, port: portOf(listener) }
}

describe('a handshake', () => {
  it('gets to the first endpoint that matches, with who it is and what came early', async () => {
    const { route, upgrades } = endpoint()
    const second = endpoint()
    const { port, lines } = await start({ routes: [route, second.route] })
    const socket = await connected(port)
    socket.write(`${handshake('/mqtt?token=secret', 'Origin: http://localhost')}early`)
    await eventually(() => upgrades.length === 1)
    const [upgrade] = upgrades
    expect(second.upgrades).toHaveLength(0)
    expect(upgrade?.head.toString()).toBe('early')
    expect(upgrade?.path).toBe('/mqtt')
    expect(upgrade?.peer).toEqual({
      connection: '1',
      address: '127.0.0.1',
      port: socket.localPort,
      localAddress: '127.0.0.1',
      localPort: port,
    })
    upgrade?.log.info('hello')
    expect(lines.at(-1)).toMatchObject({ connection: '1', peer: '127.0.0.1', path: '/mqtt', msg: 'hello' })
    expect(JSON.stringify(lines)).not.toContain('secret')
  })

  it('that is refused gets one well-formed answer', async () => {
    const { port, metrics, lines } = await start({ routes: [endpoint().route] })
    const answer = await exchange(port, handshake('/elsewhere?token=secret'))
    expect(answer.replace(/Date: .* GMT/, 'Date: now')).toBe(
      [
        'HTTP/1.1 404 Not Found',
        'Connection: close',
        'Content-Type: text/plain; charset=utf-8',
        'Content-Length: 44',
        'Date: now',
        'X-Content-Type-Options: nosniff',
        '',
        'There is no WebSocket endpoint at this path\n',
      ]
        .join('\r\n')
        .replace('Content-Length: 44', 'Content-Length: 44'),
    )
    expect(await refusals(metrics, 'unknown-path')).toBe(1)
    expect(lines.at(-1)).toMatchObject({ level: 30, reason: 'unknown-path', path: '/elsewhere', status: 404 })
    expect(JSON.stringify(lines)).not.toContain('secret')
  })

  it('from a page of another origin is refused with 403, and the log says which', async () => {
    const { port, lines } = await start({ routes: [endpoint().route] })
    expect(await exchange(port, handshake('/mqtt', 'Origin: https://evil.example'))).toMatch(/^HTTP\/1\.1 403 /)
    expect(lines.at(-1)).toMatchObject({ level: 40, err: 'Origin: https://evil.example; Host: localhost' })
  })

  it('over a limit is refused until another connection has closed', async () => {
    const { route, upgrades } = endpoint()
    const limits = new ConnectionLimits({ connections: 2, connectionsPerAddress: 1 })
    const resolveClient = compileClientResolver(['loopback'])
    const { port } = await start({ routes: [route], limits, resolveClient })
    const from = (address: string) => handshake('/mqtt', `X-Forwarded-For: ${address}`)
    const first = await connected(port)
    first.write(from('192.0.2.1'))
    await eventually(() => upgrades.length === 1)
    expect(await exchange(port, from('192.0.2.1'))).toMatch(/^HTTP\/1\.1 429 .*\r\nRetry-After: 10\r\n/s)
    const second = await connected(port)
    second.write(from('192.0.2.2'))
    await eventually(() => upgrades.length === 2)
    expect(await exchange(port, from('192.0.2.3'))).toMatch(/^HTTP\/1\.1 503 .*\r\nRetry-After: 10\r\n/s)
    expect(limits.open).toBe(2)
    first.resetAndDestroy()
    second.resetAndDestroy()
    await eventually(() => limits.open === 0)
  })

  it('is refused with 503 from the moment of the shutdown', async () => {
    const { port, router } = await start({ routes: [endpoint().route] })
    router.shutDown()
    expect(await exchange(port, handshake('/mqtt'))).toMatch(/^HTTP\/1\.1 503 .*\r\nRetry-After: 5\r\n/s)
  })

  it.each([
    ['throws', () => { throw new Error('secret detail') }], // biome-ignore format: one case per line
    ['rejects', async () => { throw new Error('secret detail') }], // biome-ignore format: one case per line
  ])('is answered 500 when the endpoint %s, without the reason', async (_how, accept) => {
    const { port, lines, limits } = await start({ routes: [endpoint({ accept }).route] })
    const answer = await exchange(port, handshake('/mqtt'))
    expect(answer).toMatch(/^HTTP\/1\.1 500 Internal Server Error\r\n/)
    expect(answer).not.toContain('secret')
    expect(JSON.stringify(lines)).toContain('secret detail')
    await eventually(() => limits.open === 0)
  })

  it.each([
    [['mqtt', 'chat'], 'chat'],
    [[], undefined],
  ])('that offers %j has the subprotocol that its endpoint chooses: %j', async (offer, chosen) => {
    const { route, upgrades } = endpoint({ chooseSubprotocol: offered => offered.find(name => name === 'chat') })
    const { port } = await start({ routes: [route] })
    const socket = await connected(port)
    socket.write(handshake('/mqtt', ...offer.map(name => `Sec-WebSocket-Protocol: ${name}`)))
    await eventually(() => upgrades.length === 1)
    expect(upgrades[0]).toMatchObject({ key: 'AAAAAAAAAAAAAAAAAAAAAA==', subprotocol: chosen })
  })

  it('of another version is refused with the one that is spoken', async () => {
    const { port } = await start({ routes: [endpoint().route] })
    const answer = await exchange(port, handshake('/mqtt').replace('Version: 13', 'Version: 8'))
    expect(answer).toMatch(/^HTTP\/1\.1 426 Upgrade Required\r\n.*\r\nSec-WebSocket-Version: 13\r\n/s)
  })

  it('still reads its refusal when it sends much at the same time', async () => {
    const { port } = await start()
    const socket = await connected(port)
    socket.write(handshake('/elsewhere'))
    socket.write(Buffer.alloc(4 * 1024 * 1024))
    socket.once('end', () => socket.end())
    expect(await received(socket)).toMatch(/There is no WebSocket endpoint at this path\n$/)
    expect(socket.errored).toBe(null)
  })

  it('does not keep its socket when it never closes', { timeout: 10_000 }, async () => {
    const { port } = await start()
    const socket: Socket = await connected(port)
    socket.write(handshake('/elsewhere'))
    socket.resume()
    // Ours stays open; the gateway destroys its side after the time limit, which we see when we write.
    await once(socket, 'end')
    const closed = new Promise(resolve => socket.once('close', resolve))
    const writing = setInterval(() => socket.write('x'), 50)
    await closed
    clearInterval(writing)
  })

  it('that is reset before the endpoint refuses it harms nobody', async () => {
    let refuse = (): void => {}
    const accept = () =>
      new Promise<void>((_, reject) => {
        refuse = () => reject(new GatewayError('broker-refused'))
      })
    const { port, limits, metrics } = await start({ routes: [endpoint({ accept }).route] })
    const socket = await connected(port)
    socket.write(handshake('/mqtt'))
    await eventually(() => limits.open === 1)
    socket.resetAndDestroy()
    await once(socket, 'close')
    refuse()
    await eventually(() => limits.open === 0)
    expect(await refusals(metrics, 'broker-refused')).toBe(1)
  })
})

describe('the path of a request', () => {
  it.each([
    ['/mqtt', '/mqtt'],
    ['/mqtt?a=/b', '/mqtt'],
    ['http://a.example/mqtt?x', '/mqtt'],
    ['http://a.example', '/'],
    ['', '/'],
    ['//a.example/mqtt', '//a.example/mqtt'],
    [undefined, '/'],
  ])('%j is %s', (target, path) => {
    expect(pathOf(target)).toBe(path)
  })
})
