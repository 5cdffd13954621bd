import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { ReadBuffer, UpstreamSocket } from '../../../src/broker/upstream/upstream-socket.js'
import { eventually } from '../../helpers/wait.js'

const sockets: net.Socket[] = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})

/** A connection of the class under test, and the server's end of it. */
async function connect(shared = new ReadBuffer()): Promise<{ socket: UpstreamSocket; server: net.Socket }> {
  const listener = net.createServer({ allowHalfOpen: true })
  await once(listener.listen(0, '127.0.0.1'), 'listening')
  const options = { port: (listener.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true }
  const socket = new UpstreamSocket(options, shared).connect(options)
  // Somebody may come who looks for another program that had this port.
  const server = await new Promise<net.Socket>((resolve, reject) => {
    socket.once('error', reject)
    listener.on('connection', candidate => {
      sockets.push(candidate)
      if (socket.localPort === undefined) socket.once('connect', () => listener.emit('connection', candidate))
      else if (candidate.remotePort === socket.localPort) resolve(candidate)
    })
  })
  listener.close()
  sockets.push(socket)
  return { socket, server }
}

describe('a connection to a broker', () => {
  it('is a stream as any other, which keeps what it has read and reads no further than it may', async () => {
    const { socket, server } = await connect()
    const sent = randomBytes(8 * 1024 ** 2)
    server.end(sent)
    await eventually(() => socket.readableLength > 0)
    const parts: Buffer[] = []
    for await (const part of socket) {
      expect(socket.readableLength).toBeLessThan(256 * 1024)
      parts.push(part)
    }
    expect(Buffer.concat(parts).equals(sent)).toBe(true)
  })

  it('hands over all bytes in order, those first that came before anybody asked, then its end', async () => {
    const { socket, server } = await connect()
    const sent = randomBytes(8 * 1024 ** 2)
    server.end(sent)
    await eventually(() => socket.readableLength > 0)
    const parts: Buffer[] = []
    socket.readDirectly(bytes => parts.push(Buffer.from(bytes)))
    await once(socket, 'end')
    expect(Buffer.concat(parts).equals(sent)).toBe(true)
  })

  it('hands over first what came in several reads before anybody asked', async () => {
    const { socket, server } = await connect()
    // Begins to read.
    socket.read(0)
    for (const [index, letter] of ['a', 'b', 'c'].entries()) {
      server.write(letter)
      await eventually(() => socket.readableLength === index + 1)
    }
    let got = ''
    socket.readDirectly(bytes => (got += bytes))
    expect(got).toBe('abc')
    server.end('d')
    await once(socket, 'end')
    expect(got).toBe('abcd')
  })

  it('hands over nothing while it is paused, also when it is paused in the middle', async () => {
    const { socket, server } = await connect()
    const sent = randomBytes(8 * 1024 ** 2)
    const parts: Buffer[] = []
    socket.readDirectly(bytes => {
      expect(socket.isPaused()).toBe(false)
      parts.push(Buffer.from(bytes))
      socket.pause()
      setImmediate(() => socket.resume())
    })
    server.end(sent)
    await once(socket, 'end')
    expect(parts.length).toBeGreaterThan(10)
    expect(Buffer.concat(parts).equals(sent)).toBe(true)
  })

  it('shares its memory with others, and none gets what is another’s', async () => {
    const shared = new ReadBuffer()
    const pairs = await Promise.all(Array.from({ length: 10 }, () => connect(shared)))
    const results = pairs.map(async ({ socket, server }, index) => {
      const parts: Buffer[] = []
      socket.readDirectly(bytes => {
        expect(bytes.buffer).toBe(shared.bytes.buffer)
        parts.push(Buffer.from(bytes))
      })
      const sent = Buffer.alloc(1024 ** 2, index)
      server.end(sent)
      await once(socket, 'end')
      expect(Buffer.concat(parts).equals(sent)).toBe(true)
    })
    await Promise.all(results)
  })
})
