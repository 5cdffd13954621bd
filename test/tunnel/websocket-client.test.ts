import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { noTraffic } from '../../src/base/metrics.js'
import type { ClientListener } from '../../src/tunnel/client.js'
import { WebSocketClient } from '../../src/tunnel/websocket-client.js'
import { eventually } from '../helpers/wait.js'
import { encodeByOracle } from '../helpers/ws-oracle.js'

const sockets: net.Socket[] = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})

/** Records the calls, in order. */
class RecordingListener implements ClientListener {
  readonly calls: string[] = []
  /** The chunks, and whether it is done with them. */
  readonly chunks: Buffer[] = []
  isDone = false
  clientSent(bytes: Buffer): boolean {
    this.calls.push(`sent ${bytes}`)
    this.chunks.push(bytes)
    return this.isDone
  }
  other = 0
  clientSentOther(bytes: number): void {
    this.other += bytes
  }
  clientDrained(): void {
    this.calls.push('drained')
  }
  clientEnded(ending: GatewayError): void {
    this.calls.push(`ended ${ending.reason}`)
  }
  clientClosed(): void {
    this.calls.push('closed')
  }
}

/** The server's end of a real connection, its listener, and the browser's end. */
async function start(): Promise<{ client: WebSocketClient; listener: RecordingListener; browser: net.Socket }> {
  const server = net.createServer({ allowHalfOpen: true })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const accepted = once(server, 'connection')
  const browser = net.connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true })
  const [socket]: net.Socket[] = await accepted
  server.close()
  if (!socket) throw new Error('no connection')
  sockets.push(socket, browser)
  const client = new WebSocketClient(socket, noTraffic())
  const listener = new RecordingListener()
  client.start(listener)
  return { client, listener, browser }
}
const frame = (payload: Buffer | string, opcode = 2): Buffer =>
  encodeByOracle({ fin: true, opcode, payload: Buffer.from(payload), mask: Buffer.from('mask') })

describe('a WebSocket client', () => {
  it('gets a frame for each write', async () => {
    const { client, browser } = await start()
    const received: Buffer[] = []
    browser.on('data', chunk => received.push(chunk))
    client.write(Buffer.from('hi'))
    client.write(Buffer.alloc(5000, 'x'))
    await eventually(() => Buffer.concat(received).length === 4 + 4 + 5000)
    const bytes = Buffer.concat(received)
    expect(bytes.subarray(0, 8).toString('latin1')).toBe('\x82\x02hi\x82\x7e\x13\x88')
    expect(bytes.subarray(8).equals(Buffer.alloc(5000, 'x'))).toBe(true)
  })

  // Node 20 has no method for it.
  const isSupported = 'transfer' in ArrayBuffer.prototype
  it.each([
    ['frees the memory of a read that its listener is done with', true],
    ['leaves the memory of a read to a listener that keeps it', false],
  ])('%s', async (_name, isDone) => {
    const { listener, browser } = await start()
    listener.isDone = isDone
    browser.write(frame(Buffer.alloc(5000, 'x')))
    await eventually(() => listener.calls.join('').replaceAll('sent ', '').length === 5000)
    const kept = listener.chunks.reduce((sum, { length }) => sum + length, 0)
    expect(kept).toBe(isDone && isSupported ? 0 : 5000)
  })

  it('reports its bytes, its end, and its close, and nothing after its close frame', async () => {
    const { client, listener, browser } = await start()
    browser.resume().end(Buffer.concat([frame('one'), frame(Buffer.from([0x03, 0xe8]), 8), frame('late')]))
    await eventually(() => listener.calls.length === 2)
    // Three headers of six bytes, the close frame's code, and what came after it.
    expect(listener.other).toBe(6 + 8 + 6 + 4)
    client.finish(new GatewayError('broker-closed'))
    await eventually(() => listener.calls.length === 3)
    expect(listener.calls).toEqual(['sent one', 'ended client-closed', 'closed'])
  })

  it('gets no bytes after its close frame, and one close frame only', async () => {
    const { client, listener, browser } = await start()
    const received: Buffer[] = []
    browser.on('data', chunk => received.push(chunk))
    client.finish(new GatewayError('broker-closed'))
    client.finish(new GatewayError('broker-lost'))
    expect(client.write(Buffer.from('late'))).toBe(true)
    client.ping()
    browser.end()
    await eventually(() => listener.calls.at(-1) === 'closed')
    const text = 'The MQTT broker closed the connection'
    const header = String.fromCharCode(0x88, 2 + text.length, 0x03, 0xe8)
    expect(Buffer.concat(received).toString('latin1')).toBe(header + text)
  })

  it('is not read while it is paused', async () => {
    const { client, listener, browser } = await start()
    client.pause()
    expect(client.paused).toBe(true)
    browser.write(frame('one'))
    await eventually(() => client.bufferedBytes > 0)
    expect(listener.calls).toEqual([])
    client.resume()
    await eventually(() => listener.calls.length === 1)
    expect(listener.calls).toEqual(['sent one'])
  })

  it('is active when it takes buffered bytes, although it sends nothing', async () => {
    const { client, listener, browser } = await start()
    while (client.write(Buffer.alloc(64 * 1024)));
    expect(client.activity).toBe(0)
    browser.resume()
    await eventually(() => listener.calls.includes('drained'))
    expect(client.activity).toBeGreaterThan(0)
  })

  it('gets no ping while much is buffered for it', async () => {
    const { client, browser } = await start()
    while (client.write(Buffer.alloc(64 * 1024)));
    client.write(Buffer.alloc(64 * 1024))
    const before = client.bufferedBytes
    client.ping()
    expect(client.bufferedBytes).toBe(before)
    browser.destroy()
  })
})
