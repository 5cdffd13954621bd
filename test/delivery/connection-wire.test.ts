import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { ConnectionWire } from '../../src/delivery/connection-wire.js'
import { SlowReaders } from '../../src/delivery/slow-readers.js'
import { createMetrics } from '../../src/metrics.js'
import { eventually } from '../helpers/wait.js'
import { recordingLog } from '../listen/rig.js'

/** Both ends of a connection whose client does not read. */
async function connection(): Promise<{ socket: Socket; client: Socket }> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1').pause()
  const [socket] = (await once(server, 'connection')) as [Socket]
  for (const end of [client, socket]) end.on('error', () => {})
  onTestFinished(() => {
    client.destroy()
    socket.destroy()
    server.close()
  })
  return { socket, client }
}

/** Cuts clients off where they leave more than `max` bytes together; and what it says of them. */
function slowReaders(max: number): { slow: SlowReaders; lines: readonly unknown[] } {
  const metrics = createMetrics()
  onTestFinished(() => metrics.close())
  const { log, lines } = recordingLog()
  return { slow: new SlowReaders({ log, metrics, max }), lines }
}

it('an answer in parts is over when there is room for the next, though it is its end that fills the connection', async () => {
  const { socket, client } = await connection()
  let answered = 0
  const { slow } = slowReaders(0)
  const wire = new ConnectionWire({ socket, headers: '', date: () => '', answered: () => answered++, slow })
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

it('whole answers that are not taken are bounded together, and the one that waits longest is cut off', async () => {
  const size = 20_000_000
  const { slow, lines } = slowReaders(2.5 * size)
  const connections = await Promise.all([connection(), connection(), connection(), connection()])
  const answered: number[] = []
  const answer = (index: number): void => {
    const { socket } = connections[index] as (typeof connections)[number]
    const given = { headers: '', date: () => '', answered: () => answered.push(index), slow }
    new ConnectionWire({ socket, ...given }).send({ body: Buffer.alloc(size) })
  }
  const destroyed = () => connections.map(({ socket }) => socket.destroyed)
  answer(0)
  answer(1)
  expect(destroyed()).toEqual([false, false, false, false])
  answer(2)
  expect(destroyed()).toEqual([true, false, false, false])
  // Whoever has taken it, or has gone, does not count.
  connections[1]?.client.resume()
  await eventually(() => answered.length === 1)
  answer(3)
  const gone = new Promise(resolve => connections[2]?.socket.once('close', resolve))
  connections[2]?.client.destroy()
  await gone
  connections[1]?.client.pause()
  answer(1)
  expect(answered).toEqual([1])
  expect(lines).toEqual([expect.objectContaining({ reason: 'client-too-slow' })])
})
