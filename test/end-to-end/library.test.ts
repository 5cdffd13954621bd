import { once } from 'node:events'
import { createServer as createHttpServer, request, type Server } from 'node:http'
import { connect as connectHttp2, createSecureServer } from 'node:http2'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import mqtt from 'mqtt'
import { generate } from 'selfsigned'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import {
  type Config,
  ConfigError,
  type Gateway,
  type GatewayOptions,
  type LogEntry,
  startGateway,
} from '../../src/index.js'

const quiet = { anonymous: true, data: 'none', log: { level: 'silent' } } as const satisfies Config

async function start(config: Config, options: GatewayOptions = {}): Promise<Gateway> {
  const gateway = await startGateway(config, options)
  onTestFinished(() => gateway.close(200))
  return gateway
}

/** Listens at a free port; closed with the test. */
async function listening(server: Server | ReturnType<typeof createSecureServer>): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => sockets.add(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return (server.address() as AddressInfo).port
}

/** A program whose every response says so, with the request's body. */
function programServer(): Server {
  return createHttpServer((message, response) => {
    const chunks: Buffer[] = []
    message.on('data', chunk => chunks.push(chunk))
    message.on('end', () => response.end(`program ${message.method} ${message.url} ${Buffer.concat(chunks)}`))
  })
}

async function attached(config: Config = {}, options: Omit<GatewayOptions, 'server'> = {}) {
  const server = programServer()
  const gateway = await start({ ...quiet, ...config }, { ...options, server })
  const port = await listening(server)
  return { server, gateway, port, url: `http://127.0.0.1:${port}` }
}

/** Writes bytes to a port. Resolves to what comes until `enough` of it. */
async function exchange(port: number, bytes: string, enough: RegExp): Promise<string> {
  const socket = connect(port, '127.0.0.1').setEncoding('latin1')
  onTestFinished(() => {
    socket.destroy()
  })
  socket.write(bytes)
  let text = ''
  for await (const chunk of socket) {
    text += chunk
    if (enough.test(text)) break
  }
  return text
}

/** The status of a refused handshake, or `open`. */
async function handshake(url: string, protocol?: string): Promise<number | 'open'> {
  const socket = new WebSocket(url, protocol)
  onTestFinished(() => socket.terminate())
  socket.on('error', () => {})
  return Promise.race([
    once(socket, 'open').then(() => 'open' as const),
    new Promise<number>(resolve => {
      socket.on('unexpected-response', (_request, { statusCode = 0 }) => resolve(statusCode))
    }),
  ])
}

describe('the library', () => {
  it('takes a plain object, which it neither changes nor freezes, and serves its own ports', async () => {
    const config: Config = { ...quiet, http: { port: 0 }, https: { port: 'off' }, mqtt: { port: 0 } }
    const copy = structuredClone(config)
    const gateway = await start(config)
    expect(config).toEqual(copy)
    expect(Object.isFrozen(config.http)).toBe(false)
    const http = gateway.urls.find(url => url.startsWith('http:'))
    expect((await fetch(`${http}/healthz`)).status).toBe(200)
    await gateway.close()
    await expect(fetch(`${http}/healthz`)).rejects.toThrow()
  })

  it('says all that is wrong with an object', async () => {
    const wrong = { http: { prt: 1 }, limits: { connections: 0 }, workers: 2 } as Config
    const error = await startGateway(wrong).catch((cause: unknown) => cause)
    expect(error).toBeInstanceOf(ConfigError)
    expect((error as ConfigError).problems).toEqual([
      expect.stringMatching(/^http\.prt: is not an option; did you mean http\.port/),
      expect.stringMatching(/^limits\.connections: 0 must be/),
      expect.stringMatching(/^workers: 2 needs another broker/),
      expect.stringMatching(/^workers: 2 needs the program mqway/),
    ])
    await expect(startGateway([] as unknown as Config)).rejects.toThrow('must be an object')
  })

  it('changes to another configuration, and says what needs another start', async () => {
    const config = { ...quiet, http: { port: 0 }, https: { port: 'off' }, mqtt: { port: 'off' } } as const
    const gateway = await start(config)
    const statusOf = async (path: string): Promise<number> => (await fetch(gateway.urls[0] + path)).status
    const changes = await gateway.reload({ ...config, deny: ['.x'], https: { port: 1 } })
    expect(changes.map(({ option, effect }) => [option, effect])).toEqual([
      ['https.port', 'restart'],
      ['deny', 'reload'],
    ])
    expect(await statusOf('/a.x')).toBe(403)
    await expect(gateway.reload({ ...config, deny: [''] })).rejects.toThrow(ConfigError)
    expect(await statusOf('/a.x')).toBe(403)
    expect(await gateway.reload()).toEqual([])
  })

  it('gives lines of its log to a function, without secrets', async () => {
    const entries: LogEntry[] = []
    const { url } = await attached({ log: { level: 'debug' } }, { log: entry => entries.push(entry) })
    const client = await mqtt.connectAsync(`${url.replace('http', 'ws')}/mqtt`, {
      username: 'anna',
      password: 'sesame',
    })
    await client.endAsync()
    expect(entries).toContainEqual(
      expect.objectContaining({ level: 'info', fields: expect.objectContaining({ path: '/mqtt' }) }),
    )
    expect(JSON.stringify(entries)).not.toContain('sesame')
  })
})

describe('a gateway on the server of another program', () => {
  it('answers its own paths, and leaves all others to the program', async () => {
    const { url } = await attached()
    const text = async (path: string, options?: RequestInit): Promise<string> =>
      (await fetch(url + path, options)).text()
    expect(await text('/')).toBe('program GET / ')
    expect(await text('/v1/users', { method: 'POST', body: 'x' })).toBe('program POST /v1/users x')
    expect(await text('/index.html')).toBe('program GET /index.html ')
    expect((await fetch(`${url}/v1/publish?topic=a`, { method: 'POST', body: 'x' })).status).toBe(201)
    expect((await fetch(`${url}/v1/publish?topic=a`)).status).toBe(405)
    expect((await fetch(`${url}/mqtt`)).status).toBe(426)
    expect((await fetch(`${url}/metrics`)).headers.get('content-type')).toMatch(/^text\/plain/)
  })

  it('leaves paths of its own that the program wants', async () => {
    const { url } = await attached({}, { except: ['/metrics', '/mqtt'] })
    expect(await (await fetch(`${url}/metrics`)).text()).toBe('program GET /metrics ')
    expect(await (await fetch(`${url}/mqtt`)).text()).toBe('program GET /mqtt ')
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
  })

  it('shares upgrades with listeners that would refuse those of others, whichever came first', async () => {
    const { server, port } = await attached()
    const echo = new WebSocketServer({ server, path: '/echo' })
    onTestFinished(() => echo.close())
    expect(await handshake(`ws://127.0.0.1:${port}/echo`)).toBe('open')
    expect(await handshake(`ws://127.0.0.1:${port}/mqtt`, 'mqtt')).toBe('open')
    expect(await handshake(`ws://127.0.0.1:${port}/other`)).toBe(400)
  })

  it('gives requests for other upgrades to the routes of the program, with their bodies', async () => {
    const { port } = await attached()
    const head = 'Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n'
    const post = (path: string): string => `POST ${path} HTTP/1.1\r\n${head}Content-Length: 4\r\n\r\nbody`
    expect(await exchange(port, post('/own'), /body$/)).toMatch(/^HTTP\/1\.1 200 OK.*program POST \/own body$/s)
    expect(await exchange(port, post('/v1/publish?topic=a'), /"id"/)).toMatch(/^HTTP\/1\.1 201 /)
    const chunked = `POST /own HTTP/1.1\r\n${head}Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n`
    expect(await exchange(port, chunked, /body$/)).toMatch(/program POST \/own body$/s)
    const two = `${post('/own')}GET /again HTTP/1.1\r\nHost: localhost\r\n\r\n`
    expect(await exchange(port, two, /again $/)).toMatch(/program POST \/own body.*program GET \/again $/s)
  })

  it('refuses a WebSocket without a route as the program would', async () => {
    const { port } = await attached()
    // Without a listener of upgrades, Node answers as to a plain request.
    expect(await handshake(`ws://127.0.0.1:${port}/nowhere`)).toBe(200)
  })

  it('writes an event stream behind a pipelined request of the program, and nothing of a request behind it', async () => {
    const server = createHttpServer()
    await start(quiet, { server })
    const slow = once(server, 'request')
    server.once('request', () => server.on('request', (_request, response) => response.end('late')))
    const port = await listening(server)
    const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`
    const got = exchange(port, get('/slow') + get('/v1/events?topic=a') + get('/late'), /event-stream.*\r\n\r\n.*\n\n/s)
    const [, response] = await slow
    response.end('slow')
    expect(await got).toMatch(/^HTTP\/1\.1 200 OK.*slow.*text\/event-stream/s)
    expect(await got).not.toContain('late')
  })

  it('applies its limits for each address', async () => {
    const { port, url } = await attached({
      limits: { connectionsPerAddress: 1, requestsPerSecond: 1, requestsBurst: 4 },
    })
    expect(await handshake(`ws://127.0.0.1:${port}/mqtt`, 'mqtt')).toBe('open')
    expect(await handshake(`ws://127.0.0.1:${port}/mqtt`, 'mqtt')).toBe(429)
    const statuses: number[] = []
    for (let sent = 0; sent < 5; sent++) statuses.push((await fetch(`${url}/v1/presence?topic=a`)).status)
    expect(statuses).toContain(429)
    expect((await fetch(`${url}/`)).status).toBe(200)
  })

  it('needs access rules or anonymous: true, as the program may listen anywhere', async () => {
    const server = programServer()
    const wrong = { data: 'none', public: '.', compat: { rrr: { prefix: '/' } } } satisfies Config
    await expect(startGateway(wrong, { server })).rejects.toThrow(
      /^anonymous: false is not enough.*\npublic: .*\ncompat\.rrr\.prefix: "\/" needs a port of mqway/,
    )
    expect(server.listenerCount('upgrade')).toBe(0)
  })

  it('ends what is its own when it closes, and leaves the server as it was', async () => {
    const { server, gateway, port, url } = await attached()
    const emit = Object.getOwnPropertyDescriptor(server, 'emit')
    expect(emit).toBeDefined()
    const client = await mqtt.connectAsync(`ws://127.0.0.1:${port}/mqtt`, { reconnectPeriod: 0 })
    const stream = await fetch(`${url}/v1/events?topic=a`)
    const own = request(`${url}/own`, { method: 'POST' })
    own.write('begun ')
    const disconnected = new Promise<void>(resolve => client.once('close', () => resolve()))
    await Promise.all([gateway.close(), disconnected, stream.text()])
    expect(server.emit).toBe(Object.getPrototypeOf(server).emit)
    expect(server.listenerCount('upgrade')).toBe(0)
    // Requests of the program are not touched, neither open ones nor new ones.
    own.end('and ended')
    const [response] = await once(own, 'response')
    expect((await response.setEncoding('utf8').toArray()).join('')).toBe('program POST /own begun and ended')
    expect(await (await fetch(`${url}/healthz`)).text()).toBe('program GET /healthz ')
  })

  it('works on servers of TLS, with HTTP/1.1 and HTTP/2, and on several at once', async () => {
    const { private: key, cert } = await generate([{ name: 'commonName', value: 'localhost' }])
    const program = (
      message: { readonly url?: string | undefined },
      response: { end(text: string): unknown },
    ): void => {
      response.end(`program ${message.url}`)
    }
    const https = createHttpsServer({ key, cert }, program)
    const http2 = createSecureServer({ key, cert, allowHTTP1: true }, program)
    await start(quiet, { server: [https, http2] })
    for (const server of [https, http2]) {
      const port = await listening(server)
      const tls = { rejectUnauthorized: false }
      const client = await mqtt.connectAsync(`wss://127.0.0.1:${port}/mqtt`, tls)
      await client.endAsync()
    }
    const session = connectHttp2(`https://127.0.0.1:${(http2.address() as AddressInfo).port}`, {
      rejectUnauthorized: false,
    })
    onTestFinished(() => session.destroy())
    const get = async (path: string): Promise<string> => {
      const stream = session.request({ ':path': path })
      return (await stream.setEncoding('utf8').toArray()).join('')
    }
    expect(JSON.parse(await get('/healthz'))).toMatchObject({ status: 'ok' })
    expect(await get('/other')).toBe('program /other')
  })
})
