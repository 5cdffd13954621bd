import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { noTraffic } from '../../src/metrics.js'
import { WebSocketStream } from '../../src/tunnel/websocket-stream.js'

const sockets: net.Socket[] = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})

/** A stream on a real connection, and the client's end of it. */
async function start(): Promise<{ stream: WebSocketStream; client: net.Socket }> {
  const server = net.createServer({ allowHalfOpen: true })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const accepted = once(server, 'connection')
  const client = net.connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true })
  const [socket]: net.Socket[] = await accepted
  server.close()
  if (!socket) throw new Error('no connection')
  sockets.push(socket, client)
  return { stream: new WebSocketStream(socket, noTraffic()), client }
}

describe('a WebSocket stream', () => {
  it('makes one frame of all that is written in one turn, as an MQTT encoder writes it', async () => {
    const { stream, client } = await start()
    stream.cork()
    for (const part of ['\x30', '\x05', '\x00\x01', 'a', 'hi']) stream.write(part, 'latin1')
    stream.uncork()
    const [bytes] = await once(client, 'data')
    expect(bytes).toEqual(Buffer.from('\x82\x07\x30\x05\x00\x01ahi', 'latin1'))
  })

  it('counts a client that takes what was waiting as alive, although it says nothing', async () => {
    const { stream, client } = await start()
    while (stream.write(Buffer.alloc(64 * 1024)));
    expect(stream.signsOfLife).toBe(0)
    const drained = once(stream, 'drain')
    client.resume()
    await drained
    expect(stream.signsOfLife).toBeGreaterThan(0)
  })

  it('sends no ping to a client that has not taken what was sent before', async () => {
    const { stream, client } = await start()
    while (stream.write(Buffer.alloc(64 * 1024)));
    stream.write(Buffer.alloc(64 * 1024))
    const before = stream.bufferedBytes
    stream.ping()
    expect(stream.bufferedBytes).toBe(before)
    client.destroy()
  })
})
