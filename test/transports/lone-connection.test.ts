import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { detachFromServer } from '../../src/transports/lone-connection.js'

let server: Server
let client: Socket
beforeEach(async () => {
  server = createServer().listen(0, '127.0.0.1')
  server.setTimeout(60_000)
  await once(server, 'listening')
  client = connect((server.address() as AddressInfo).port, '127.0.0.1')
  client.on('error', () => {})
})
afterEach(() => {
  client.destroy()
  server.close()
})

/** Asks, and has the connection leave the server once that has forgotten the request. */
async function leave(): Promise<Socket> {
  client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  const [{ socket }, response] = (await once(server, 'request')) as [{ socket: Socket }, ServerResponse]
  socket.on('close', ours)
  response.emit('finish')
  detachFromServer(socket)
  return socket
}

function ours(): void {}

const events = ['data', 'end', 'close', 'drain', 'error', 'timeout'] as const

it('a connection that leaves its server has no parser, and nothing of the server listens to it', async () => {
  const socket = await leave()
  expect(Reflect.get(socket, 'parser')).toBeNull()
  const names = events.flatMap(event => socket.listeners(event).map(({ name }) => name))
  expect(names.filter(name => name.includes('socketOn'))).toEqual([])
  expect(socket.listeners('close')).toEqual([ours])
})

it('what is written to it arrives, and what comes on it is thrown away: no request is answered any more', async () => {
  const socket = await leave()
  let requests = 0
  server.on('request', () => requests++)
  client.write(`GET / HTTP/1.1\r\nHost: x\r\n\r\n${'x'.repeat(200_000)}`)
  while (socket.bytesRead < 200_000) await once(socket, 'data')
  socket.write('hello')
  expect(String(await once(client, 'data'))).toBe('hello')
  expect(requests).toBe(0)
})

it('it ends when its client does', async () => {
  const socket = await leave()
  const closed = once(socket, 'close')
  client.end()
  await closed
})

it('a client that resets it ends nothing else', async () => {
  const socket = await leave()
  const closed = new Promise(resolve => socket.once('close', resolve))
  client.resetAndDestroy()
  await closed
})

it('a server that closes waits for it, and does not end it', async () => {
  const socket = await leave()
  let closed = false
  server.close(() => {
    closed = true
  })
  server.closeAllConnections()
  socket.write('still here')
  expect(String(await once(client, 'data'))).toBe('still here')
  expect(closed).toBe(false)
})
