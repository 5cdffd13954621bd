import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { generate } from 'mqtt-packet'
import { afterEach, describe, expect, it } from 'vitest'
import { createWebSocketStream, WebSocket } from 'ws'
import { startTunnelRig, type TunnelRig } from '../helpers/tunnel-rig.js'
import { eventually, settled } from '../helpers/wait.js'
import { encodeByOracle } from '../helpers/ws-oracle.js'

const open: TunnelRig[] = []
const start = async (...args: Parameters<typeof startTunnelRig>): Promise<TunnelRig> => {
  const rig = await startTunnelRig(...args)
  open.push(rig)
  return rig
}
afterEach(async () => {
  await Promise.all(open.splice(0).map(rig => rig.close()))
})

const echo = (socket: net.Socket): void => void socket.pipe(socket)
const closed = async (client: WebSocket): Promise<{ code: number; reason: string }> => {
  const [code, reason] = await once(client, 'close')
  return { code, reason: String(reason) }
}

/** A WebSocket client on a bare socket, for what `ws` would never send. */
async function rawClient(rig: TunnelRig): Promise<net.Socket> {
  const socket = net.connect({ port: rig.port, host: '127.0.0.1', allowHalfOpen: true })
  socket.on('error', () => {})
  socket.write(
    'GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n',
  )
  const [answer] = await once(socket, 'data')
  expect(String(answer)).toMatch(/^HTTP\/1.1 101 /)
  return socket
}
const frame = (payload: Buffer | string, opcode = 2): Buffer =>
  encodeByOracle({ fin: true, opcode, payload: Buffer.from(payload), mask: randomBytes(4) })

const connectPacket = generate({ cmd: 'connect', clientId: 'test', protocolVersion: 4, clean: true, keepalive: 60 })

describe('bytes through the tunnel', () => {
  it.each([
    ['ws', false],
    ['wss', true],
  ])(
    '200 MB of random bytes through %s and a TCP echo come back unchanged, both directions at once',
    async (_name, tls) => {
      const rig = await start(echo, {}, tls)
      const stream = createWebSocketStream(rig.connect())
      const block = randomBytes(1024 ** 2)
      const sent = createHash('sha256')
      const received = createHash('sha256')
      const total = 200 * 1024 ** 2
      let arrived = 0
      const all = new Promise<void>(resolve => {
        stream.on('data', (chunk: Buffer) => {
          received.update(chunk)
          arrived += chunk.length
          if (arrived >= total) resolve()
        })
      })
      for (let left = total; left > 0; ) {
        // Any size, so that frames begin and end anywhere in the reads.
        const size = Math.min(left, 1 + Math.floor(Math.random() * block.length))
        const at = Math.floor(Math.random() * (block.length - size + 1))
        const chunk = block.subarray(at, at + size)
        sent.update(chunk)
        left -= size
        if (!stream.write(Buffer.from(chunk))) await once(stream, 'drain')
      }
      await all
      expect(arrived).toBe(total)
      expect(received.digest('hex')).toBe(sent.digest('hex'))
      stream.destroy()
    },
    60_000,
  )

  it('what the client sends together with its request is kept', async () => {
    const rig = await start(echo)
    const socket = net.connect(rig.port, '127.0.0.1')
    const request =
      'GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n'
    socket.write(Buffer.concat([Buffer.from(request), frame('early')]))
    let received = Buffer.alloc(0)
    socket.on('data', chunk => {
      received = Buffer.concat([received, chunk])
    })
    await eventually(() => received.includes('\x82\x05early', 0, 'latin1'))
    socket.destroy()
  })

  it('empty frames pass, and mean nothing', async () => {
    const rig = await start(echo)
    const client = rig.connect()
    await once(client, 'open')
    client.send(Buffer.alloc(0))
    client.send(Buffer.from('a'))
    client.send(Buffer.alloc(0))
    client.send(Buffer.from('b'))
    const received: Buffer[] = []
    client.on('message', data => received.push(data as Buffer))
    await eventually(() => Buffer.concat(received).toString() === 'ab')
  })

  it('a ping is answered with its own payload, also between the fragments of a message', async () => {
    const rig = await start(echo)
    const client = rig.connect()
    await once(client, 'open')
    client.send('one', { binary: true, fin: false })
    client.ping('are you there?')
    client.send('two', { binary: true, fin: true })
    const received: Buffer[] = []
    client.on('message', data => received.push(data as Buffer))
    const [pong] = await once(client, 'pong')
    expect(String(pong)).toBe('are you there?')
    await eventually(() => Buffer.concat(received).toString() === 'onetwo')
  })
})

describe('pings', () => {
  it('are answered with the last one of those that are read at once', async () => {
    const rig = await start(echo)
    const client = rig.connect()
    await once(client, 'open')
    const pongs: string[] = []
    client.on('pong', data => pongs.push(String(data)))
    const { _socket: raw } = client as unknown as { _socket: net.Socket }
    raw.cork()
    for (let number = 1; number <= 1000; number++) client.ping(`${number}`)
    raw.uncork()
    await eventually(() => pongs.includes('1000'))
    expect(pongs.length).toBeLessThan(100)
  })
})

describe('a stalled peer', () => {
  const total = 100 * 1024 ** 2
  const block = randomBytes(1024 ** 2)
  const expected = createHash('sha256')
  for (let i = 0; i < 100; i++) expected.update(block)
  const digest = expected.digest('hex')
  const limit = 256 * 1024

  it.each([
    ['ws', false],
    ['wss', true],
  ])(
    'a client that does not read leaves at most 256 KiB in the gateway while 100 MB wait, over %s',
    async (_name, tls) => {
      const rig = await start(
        socket => {
          for (let i = 0; i < 100; i++) socket.write(block)
        },
        {},
        tls,
      )
      const client = rig.connect()
      client.pause()
      client.on('open', () => client.pause())
      await once(client, 'open')
      await settled(() => rig.brokerSockets[0]?.bytesWritten ?? 0)
      expect(rig.tunnels.bufferedBytes).toBeGreaterThan(0)
      expect(rig.tunnels.bufferedBytes).toBeLessThanOrEqual(limit)

      const received = createHash('sha256')
      let arrived = 0
      client.on('message', (data: Buffer) => {
        received.update(data)
        arrived += data.length
      })
      client.resume()
      await eventually(() => arrived === total)
      expect(received.digest('hex')).toBe(digest)
    },
    60_000,
  )

  it.each([
    ['ws', false],
    ['wss', true],
  ])(
    'a broker that does not read leaves at most 256 KiB in the gateway while 100 MB wait, over %s',
    async (_name, tls) => {
      const rig = await start(socket => void socket.pause(), { pingInterval: 1000 }, tls)
      const stream = createWebSocketStream(rig.connect())
      for (let i = 0; i < 100; i++) stream.write(block)
      await eventually(() => rig.tunnels.size === 1)
      await settled(() => rig.tunnels.bufferedBytes)
      expect(rig.tunnels.bufferedBytes).toBeGreaterThan(0)
      expect(rig.tunnels.bufferedBytes).toBeLessThanOrEqual(limit)

      const received = createHash('sha256')
      let arrived = 0
      rig.brokerSockets[0]?.on('data', (chunk: Buffer) => {
        received.update(chunk)
        arrived += chunk.length
      })
      rig.brokerSockets[0]?.resume()
      await eventually(() => arrived === total)
      expect(received.digest('hex')).toBe(digest)
      stream.destroy()
    },
    60_000,
  )

  it('a client that floods with pings and reads no answer leaves at most 256 KiB in the gateway', async () => {
    const rig = await start(echo)
    const socket = await rawClient(rig)
    socket.pause()
    const pings = Buffer.concat(Array.from({ length: 1000 }, () => frame(randomBytes(125), 9)))
    for (let i = 0; i < 100; i++) if (!socket.write(pings)) await once(socket, 'drain')
    await settled(() => rig.tunnels.bufferedBytes)
    expect(rig.tunnels.bufferedBytes).toBeLessThanOrEqual(limit)
    socket.destroy()
  })
})

describe('a tunnel ends', () => {
  it('when the client closes: the broker gets all that came before, then FIN; the client gets its own code back', async () => {
    const rig = await start(echo)
    const client = rig.connect()
    await once(client, 'open')
    const received: Buffer[] = []
    client.on('message', data => received.push(data as Buffer))
    const big = randomBytes(3 * 1024 ** 2)
    client.send(big)
    client.close(4001, 'done')
    expect(await closed(client)).toEqual({ code: 4001, reason: 'done' })
    // The echo of what was in flight arrives before the close frame.
    expect(Buffer.concat(received).equals(big)).toBe(true)
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'client-closed' })).toBe(1)
  })

  it('when the client half-closes without a close frame: what was in flight is delivered both ways', async () => {
    const rig = await start(echo)
    const socket = await rawClient(rig)
    const received: Buffer[] = []
    socket.on('data', chunk => received.push(chunk))
    socket.end(frame('last words'))
    await once(socket, 'end')
    const bytes = Buffer.concat(received)
    expect(bytes.subarray(0, 12).toString('latin1')).toBe('\x82\x0alast words')
    // Then the close frame, with 1002, and nothing after it.
    expect(bytes.subarray(12, 13).toString('hex')).toBe('88')
    expect(bytes.readUInt16BE(14)).toBe(1002)
    expect(bytes.length).toBe(14 + (bytes[13] ?? 0))
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'client-gone' })).toBe(1)
  })

  it('when the client is reset: the broker still gets what came before', async () => {
    const received: Buffer[] = []
    const rig = await start(socket => socket.on('data', chunk => received.push(chunk)))
    const socket = await rawClient(rig)
    socket.write(frame('before the reset'))
    await eventually(() => Buffer.concat(received).toString() === 'before the reset')
    const ended = once(rig.brokerSockets[0] as net.Socket, 'end')
    socket.resetAndDestroy()
    await ended
    rig.brokerSockets[0]?.end()
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'client-reset' })).toBe(1)
  })

  it('when the broker closes: the client gets all that came before, then 1000 with a sentence', async () => {
    const big = randomBytes(3 * 1024 ** 2)
    const rig = await start(socket => socket.end(big))
    const client = rig.connect()
    const received: Buffer[] = []
    client.on('message', data => received.push(data as Buffer))
    expect(await closed(client)).toEqual({ code: 1000, reason: 'The MQTT broker closed the connection' })
    expect(Buffer.concat(received).equals(big)).toBe(true)
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'broker-closed' })).toBe(1)
  })

  it('when the broker half-closes: what the client has sent still reaches it', async () => {
    const received: Buffer[] = []
    const rig = await start(socket => {
      socket.on('data', chunk => received.push(chunk))
      socket.end('bye')
    })
    const socket = await rawClient(rig)
    const answer: Buffer[] = []
    socket.on('data', chunk => answer.push(chunk))
    await once(socket, 'end')
    socket.write(frame('still'))
    socket.end(frame(' here', 2))
    await eventually(() => Buffer.concat(received).toString() === 'still here')
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'broker-closed' })).toBe(1)
  })

  it('when the broker is reset: the client gets 1014 with a sentence', async () => {
    const rig = await start(socket => socket.once('data', () => socket.resetAndDestroy()))
    const client = rig.connect()
    await once(client, 'open')
    client.send(Buffer.from('go'))
    expect(await closed(client)).toEqual({ code: 1014, reason: 'The connection to the MQTT broker was lost' })
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'broker-lost' })).toBe(1)
  })

  it('when the client breaks the protocol: the broker gets what came before, the client the code and why', async () => {
    const received: Buffer[] = []
    const rig = await start(socket => {
      socket.on('data', chunk => received.push(chunk))
      socket.on('end', () => socket.end())
    })
    const socket = await rawClient(rig)
    const answer: Buffer[] = []
    socket.on('data', chunk => answer.push(chunk))
    socket.write(Buffer.concat([frame('good'), frame('text', 1), frame('late')]))
    await once(socket, 'end')
    socket.end()
    expect(Buffer.concat(received).toString()).toBe('good')
    const bytes = Buffer.concat(answer)
    expect(bytes.readUInt16BE(2)).toBe(1003)
    expect(bytes.subarray(4).toString()).toMatch(/^MQTT travels in binary frames/)
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'text-frame' })).toBe(1)
  })

  it('when the client answers no ping: after two of them, with 1011', async () => {
    const rig = await start(echo, { pingInterval: 20, closeTimeout: 50 })
    const client = rig.connect([], { autoPong: false })
    let pings = 0
    client.on('ping', () => pings++)
    expect((await closed(client)).code).toBe(1011)
    expect(pings).toBe(2)
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'ping-timeout' })).toBe(1)
  })

  it('not while the client answers pings', async () => {
    const rig = await start(echo, { pingInterval: 20 })
    const client = rig.connect()
    let pings = 0
    client.on('ping', () => pings++)
    await eventually(() => pings > 10)
    expect(client.readyState).toBe(WebSocket.OPEN)
  })

  it('within the close timeout when the broker does not end after the client has closed', async () => {
    const rig = await start(() => {}, { closeTimeout: 50 })
    const client = rig.connect()
    await once(client, 'open')
    client.close(1000)
    expect((await closed(client)).code).toBe(1000)
    await eventually(() => rig.tunnels.size === 0)
  })

  it('within the close timeout when the client neither reads nor ends after the broker has closed', async () => {
    const rig = await start(socket => socket.end(randomBytes(10 * 1024 ** 2)), { closeTimeout: 50 })
    const socket = await rawClient(rig)
    socket.pause()
    // The broker's end is only seen once the client has read; so the client leaves the gateway no other way than time.
    rig.brokerSockets[0]?.once('finish', () => rig.brokerSockets[0]?.resetAndDestroy())
    rig.brokerSockets[0]?.resetAndDestroy()
    await eventually(() => rig.tunnels.size === 0)
    socket.destroy()
  })

  it('at shutdown with 1001, all of them, within the grace time', async () => {
    const rig = await start(echo)
    const clients = Array.from({ length: 50 }, () => rig.connect())
    await Promise.all(clients.map(client => once(client, 'open')))
    const endings = clients.map(closed)
    await rig.tunnels.close(2000)
    expect(new Set((await Promise.all(endings)).map(ending => ending.code))).toEqual(new Set([1001]))
    expect(rig.tunnels.size).toBe(0)
    const late = rig.connect()
    await expect(once(late, 'open')).rejects.toThrow('503')
    expect(rig.refusals.at(-1)?.reason).toBe('shutting-down')
  })
})

describe('1,000 connections that end in each way', () => {
  const ways: Record<string, { broker: (socket: net.Socket) => void; client: (socket: net.Socket) => void }> = {
    'the client closes': { broker: echo, client: socket => void socket.end(frame('\x03\xe8', 8)) },
    'the client half-closes': { broker: echo, client: socket => void socket.end() },
    'the client resets': { broker: echo, client: socket => void socket.resetAndDestroy() },
    'the client breaks the protocol': { broker: echo, client: socket => void socket.end(Buffer.from([0xff, 0xff])) },
    'the broker closes': {
      broker: socket => void socket.end(),
      client: socket => socket.on('end', () => socket.end()),
    },
    'the broker resets': {
      broker: socket => socket.once('data', () => socket.resetAndDestroy()),
      client: socket => void socket.write(frame(connectPacket)),
    },
    'nobody says anything': { broker: () => {}, client: () => {} },
  }

  it.each(Object.entries(ways))(
    'leave no socket, timer or listener when %s',
    async (_name, way) => {
      const rig = await start(way.broker, {
        closeTimeout: 100,
        pingInterval: 100,
        connectTimeout: 100,
        inspectConnect: true,
      })
      const before = process.getActiveResourcesInfo().length
      for (let batch = 0; batch < 10; batch++) {
        await Promise.all(
          Array.from({ length: 100 }, async () => {
            const socket = net.connect({ port: rig.port, host: '127.0.0.1', allowHalfOpen: true })
            socket.on('error', () => {})
            socket.write(
              'GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
                'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n',
            )
            const gone = once(socket, 'close')
            socket.once('data', () => way.client(socket))
            socket.on('end', () => socket.end())
            await gone
          }),
        )
      }
      await eventually(() => rig.tunnels.size === 0)
      for (const socket of rig.brokerSockets.splice(0)) socket.destroy()
      await eventually(() => process.getActiveResourcesInfo().length <= before)
      for (const state of ['opening', 'open', 'closing']) {
        expect(await rig.count('mqway_connections', { transport: 'websocket', state })).toBe(0)
      }
      const values = (await rig.metrics.registry.getSingleMetric('mqway_endings_total')?.get())?.values ?? []
      expect(values.reduce((sum, { value }) => sum + value, 0)).toBe(1000)
    },
    60_000,
  )
})
