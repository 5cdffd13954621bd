import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { ConnectionWire } from '../../src/delivery/connection-wire.js'

/** Both ends of a connection whose client does not read. */
async function connection(): Promise<{ socket: Socket; client: Socket }> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1').pause()
  const [socket] = (await once(server, 'connection')) as [Socket]
  onTestFinished(() => {
    client.destroy()
    socket.destroy()
    server.close()
  })
  return { socket, client }
}

it('an answer in parts is over when there is room for the next, though it is its end that fills the connection', async () => {
  const { socket, client } = await connection()
  let answered = 0
  const wire = new ConnectionWire({ socket, headers: '', date: () => '', answered: () => answered++ })
  wire.begin()
  const part = Buffer.alloc(1000)
  while (socket.writableLength === 0) wire.body.write(part)
  // One digit more or less in the length of a part is one byte.
  const around = '400\r\n\r\n'.length
  wire.body.write(Buffer.alloc(socket.writableHighWaterMark - socket.writableLength - around - 2))
  expect(socket.writableNeedDrain).toBe(false)
  wire.body.end()
  expect([socket.writableNeedDrain, answered]).toEqual([true, 0])
  client.resume()
  await once(socket, 'drain')
  expect(answered).toBe(1)
})
