import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { connect, createServer } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { StartError } from '../../src/base/start-error.js'
import { formatUrl, type ListenOptions, listen, listenAtPath } from '../../src/server/listener.js'
import { eventually } from '../helpers/wait.js'
import {
  closing,
  connected,
  portOf,
  recordingLog,
  refusals,
  takenPort,
  temporaryDirectory,
  testMetrics,
} from './rig.js'

const options = (changed: Partial<ListenOptions> = {}): ListenOptions => ({
  purpose: 'http',
  host: '127.0.0.1',
  port: 0,
  maxConnections: 100,
  log: recordingLog().log,
  metrics: testMetrics(),
  ...changed,
})

async function failure(work: Promise<unknown>): Promise<StartError> {
  const error = await work.then(
    () => undefined,
    reason => reason,
  )
  expect(error).toBeInstanceOf(StartError)
  return error
}

async function occupiedPort(): Promise<number> {
  const other = createServer().listen(0, '127.0.0.1')
  onTestFinished(() => void other.close())
  await once(other, 'listening')
  return takenPort(other.address())
}

describe('a listener', () => {
  it('takes a free port for 0, the same one on every host', async () => {
    const listener = closing(await listen(() => createServer(), options({ host: ['127.0.0.1', '127.0.0.2'] })))
    const port = portOf(listener)
    expect(listener.addresses).toEqual([
      { host: '127.0.0.1', port },
      { host: '127.0.0.2', port },
    ])
  })

  it('says that the MQTT port is taken by what is likely', async () => {
    const port = await occupiedPort()
    const error = await failure(listen(() => createServer(), options({ purpose: 'mqtt', port })))
    expect(error.exitCode).toBe(69)
    expect(error.message).toBe(
      `port ${port} on 127.0.0.1 is taken: is mosquitto running? then: --broker mqtt://127.0.0.1:${port} --mqtt-port off`,
    )
  })

  it.each(['http', 'https'] as const)('names the flag and a free port when the %s port is taken', async purpose => {
    const port = await occupiedPort()
    const { message } = await failure(listen(() => createServer(), options({ purpose, port })))
    const [, free] = new RegExp(`--${purpose}-port (\\d+)$`).exec(message) ?? []
    const listener = closing(await listen(() => createServer(), options({ port: Number(free) })))
    expect(portOf(listener)).toBeGreaterThan(port)
  })

  it('says which address this machine does not have, and which it has', async () => {
    const { message } = await failure(listen(() => createServer(), options({ host: '192.0.2.1' })))
    expect(message).toMatch(/^this machine has no address 192\.0\.2\.1: --host can be .*127\.0\.0\.1/)
  })

  it('leaves nothing bound when one of several hosts fails', async () => {
    const servers: ReturnType<typeof createServer>[] = []
    const make = () => {
      const server = createServer()
      servers.push(server)
      return server
    }
    await failure(listen(make, options({ host: ['127.0.0.1', '192.0.2.1'] })))
    expect(servers.length).toBeGreaterThan(1)
    expect(servers.filter(({ listening }) => listening)).toEqual([])
  })

  it('does not share its port with another listener', async () => {
    const listener = closing(await listen(() => createServer(), options()))
    const error = await failure(listen(() => createServer(), options({ port: portOf(listener) })))
    expect(error.message).toContain(String(portOf(listener)))
  })

  it('accepts several connections in one iteration of the event loop, where several sockets can listen at a port', async () => {
    const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
    const isShared = process.platform === 'linux' && (major > 22 || (major === 22 && minor >= 12))
    let [accepted, inIteration, most] = [0, 0, 0]
    const make = () =>
      createServer(() => {
        accepted++
        if (++inIteration === 1) {
          setImmediate(() => {
            most = Math.max(most, inIteration)
            inIteration = 0
          })
        }
      })
    const listener = closing(await listen(make, options()))
    const clients = Array.from({ length: 64 }, () => connect({ port: portOf(listener), host: '127.0.0.1' }))
    onTestFinished(() => {
      for (const client of clients) client.destroy()
    })
    // The kernel completes the connections meanwhile.
    for (const end = performance.now() + 50; performance.now() < end; );
    await vi.waitUntil(() => accepted === 64)
    expect(most > 1).toBe(isShared)
  })

  it('stops accepting at once, and has closed when the last connection has', async () => {
    const listener = await listen(() => createServer(), options())
    const socket = await connected(portOf(listener))
    let closed = false
    const first = listener.close().then(() => {
      closed = true
    })
    await expect(connected(portOf(listener))).rejects.toThrow(/ECONNREFUSED/)
    expect(closed).toBe(false)
    listener.destroyConnections()
    await Promise.all([first, listener.close(), once(socket.resume(), 'end')])
  })

  it('drops what is over the number of sockets, counts it, and says so once', async () => {
    const { log, lines } = recordingLog()
    const metrics = testMetrics()
    const listener = closing(await listen(() => createServer(), options({ maxConnections: 1, log, metrics })))
    await connected(portOf(listener))
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const dropped = await connected(portOf(listener))
      await once(dropped.resume(), 'end')
    }
    expect(await refusals(metrics, 'too-many-connections')).toBe(3)
    expect(lines.map(({ msg }) => msg)).toEqual(['Connections were dropped: all are taken'])
  })
})

describe('a Unix socket', () => {
  it('is open to owner and group, and gone after the close', async () => {
    const path = join(await temporaryDirectory(), 's')
    const listener = await listen(() => createServer(socket => socket.end('x')), options({ port: `unix:${path}` }))
    expect(listener.addresses).toEqual([{ path }])
    expect((await stat(path)).mode & 0o777).toBe(0o660)
    const socket = connect(path)
    expect(String((await once(socket, 'data'))[0])).toBe('x')
    socket.destroy()
    await listener.close()
    expect(existsSync(path)).toBe(false)
  })

  it('replaces the file of a process that was killed', async () => {
    const path = join(await temporaryDirectory(), 's')
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.stdout.write('.'))`
    const other = spawn(process.execPath, ['-e', script])
    await once(other.stdout, 'data')
    const refused = await failure(listen(() => createServer(), options({ port: `unix:${path}` })))
    expect(refused.message).toMatch(/another program listens there/)
    other.kill('SIGKILL')
    await once(other, 'exit')
    expect(existsSync(path)).toBe(true)
    closing(await listen(() => createServer(), options({ port: `unix:${path}` })))
  })

  it('leaves a file alone that is no socket', async () => {
    const path = join(await temporaryDirectory(), 's')
    await writeFile(path, 'mine')
    await failure(listen(() => createServer(), options({ port: `unix:${path}` })))
    expect(existsSync(path)).toBe(true)
  })

  it.each([
    ['in a directory that is not there', '/nowhere-at-all/s', /the directory does not exist/],
    ['with a path that is too long', `/tmp/${'x'.repeat(120)}`, /107 bytes/],
  ])('%s is an error that says so', async (_case, path, message) => {
    expect((await failure(listen(() => createServer(), options({ port: `unix:${path}` })))).message).toMatch(message)
  })
})

describe('a URL', () => {
  it.each([
    ['http', { host: '127.0.0.1', port: 8080 }, 'http://localhost:8080'],
    ['https', { host: '::1', port: 443 }, 'https://localhost'],
    ['wss', { host: '2001:db8::1', port: 8443 }, 'wss://[2001:db8::1]:8443'],
    ['mqtt', { host: '192.0.2.1', port: 1883 }, 'mqtt://192.0.2.1:1883'],
    ['http', { path: '/run/mqway' }, 'unix:/run/mqway'],
  ] as const)('%s of %j is %s', (scheme, address, url) => {
    expect(formatUrl(scheme, address)).toBe(url)
  })

  it('of all addresses has the name of this machine', () => {
    expect(formatUrl('http', { host: '0.0.0.0', port: 80 })).toBe(`http://${hostname()}`)
    expect(formatUrl('http', { host: '::', port: 80 })).toBe(`http://${hostname()}`)
  })
})

describe('a client that resets its connection right after its request', () => {
  /** A program that writes a request and resets the connection. */
  const client = `
    const socket = require('node:net').connect({ port: process.argv[1], host: '127.0.0.1' })
    socket.on('connect', () => socket.write('GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n', () => socket.resetAndDestroy()))
  `

  it('is dropped, since its address is unknown', async () => {
    const seen: (string | undefined)[] = []
    const create = () => createHttpServer(({ socket }) => void seen.push(socket.remoteAddress))
    const listener = closing(await listen(create, options()))
    // The connection is accepted when the client has gone.
    execFileSync(process.execPath, ['-e', client, String(portOf(listener))])
    const response = await fetch(`http://127.0.0.1:${portOf(listener)}/`, { signal: AbortSignal.timeout(500) }).catch(
      () => undefined,
    )
    expect(response).toBeUndefined()
    expect(seen).toEqual(['127.0.0.1'])
  })

  it('keeps its address over TLS, which was read when it connected', async () => {
    const directory = await temporaryDirectory()
    const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')]
    const files = ['-keyout', key, '-out', cert]
    const making = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', ...files]
    execFileSync('openssl', making, { stdio: 'ignore' })
    const server = createHttpsServer({ cert: await readFile(cert), key: await readFile(key) })
    const closed: (string | undefined)[] = []
    server.on('secureConnection', socket => socket.on('close', () => closed.push(socket.remoteAddress)))
    const listener = closing(await listen(() => server, options()))
    const socket = connectTls({ port: portOf(listener), host: '127.0.0.1', rejectUnauthorized: false })
    await Promise.all([once(server, 'secureConnection'), once(socket, 'secureConnect')])
    socket.destroy()
    await eventually(() => closed.length > 0)
    expect(closed).toEqual(['127.0.0.1'])
  })
})

it('a private Unix socket is open to nobody else from its first moment, whatever the umask', async () => {
  const directory = await temporaryDirectory()
  const path = join(directory, 'socket')
  const mask = process.umask(0)
  onTestFinished(() => void process.umask(mask))
  const server = createServer()
  onTestFinished(() => void server.close())
  let first: number | undefined
  server.on('listening', () => {
    first = statSync(path).mode & 0o077
  })
  await listenAtPath(server, path, 0o600)
  expect([first, statSync(path).mode & 0o777, process.umask()]).toEqual([0, 0o600, 0])
})
