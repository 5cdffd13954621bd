import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { createMetrics } from '../../../src/base/metrics.js'
import { UnreadResponses } from '../../../src/http/unread-responses.js'
import { ConnectionWriter } from '../../../src/transports/poll/repeated-polls.js'
import { eventually } from '../../helpers/wait.js'
import { recordingLog } from '../../server/rig.js'

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
function untakenAnswers(max: number): { unreadResponses: UnreadResponses; lines: readonly unknown[] } {
  const metrics = createMetrics()
  onTestFinished(() => metrics.close())
  const { log, lines } = recordingLog()
  return { unreadResponses: new UnreadResponses({ log, metrics, max }), lines }
}

it('an answer in parts is over when there is room for the next, though it is its end that fills the connection', async () => {
  const { socket, client } = await connection()
  let answered = 0
  const { unreadResponses } = untakenAnswers(0)
  const writer = new ConnectionWriter(socket, '', unreadResponses, () => answered++)
  writer.begin()
  const part = Buffer.alloc(1000)
  while (socket.writableLength === 0) writer.body.write(part)
  // One digit more or less in the length of a part is one byte.
  const around = '400\r\n\r\n'.length
  writer.body.write(Buffer.alloc(socket.writableHighWaterMark - socket.writableLength - around - 2))
  expect(socket.writableNeedDrain).toBe(false)
  writer.body.end()
  expect([socket.writableNeedDrain, answered]).toEqual([true, 0])
  client.resume()
  await once(socket, 'drain')
  expect(answered).toBe(1)
})

it('whole answers that are not taken are bounded together with those of a server, and the longest wait is cut off', async () => {
  const size = 20_000_000
  const { unreadResponses, lines } = untakenAnswers(2.5 * size)
  const connections = await Promise.all(Array.from({ length: 5 }, () => connection()))
  const answered: number[] = []
  const answer = (index: number): void => {
    const { socket } = connections[index] as (typeof connections)[number]
    new ConnectionWriter(socket, '', unreadResponses, () => answered.push(index)).send({ body: Buffer.alloc(size) })
  }
  const destroyed = () => connections.map(({ socket }) => socket.destroyed)
  const server = createHttpServer((_request, response) => unreadResponses.add(response)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1').on('error', () => {})
  onTestFinished(() => {
    client.destroy()
    server.close()
  })
  const asked = once(server, 'request')
  client.pause().write('GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  const [, response] = (await asked) as [IncomingMessage, ServerResponse]
  answer(0)
  // It was asked for first, and has waited less.
  response.end(Buffer.alloc(size))
  answer(1)
  await eventually(() => lines.length > 0)
  expect([...destroyed(), response.destroyed]).toEqual([true, false, false, false, false, false])
  // Whoever has taken it, or has gone, does not count.
  const taken = once(response, 'close')
  client.resume()
  await taken
  const gone = new Promise(resolve => connections[1]?.socket.once('close', resolve))
  connections[1]?.client.destroy()
  await gone
  unreadResponses.delete(response)
  for (const index of [2, 3, 4]) answer(index)
  await eventually(() => lines.length > 1)
  expect(destroyed()).toEqual([true, true, true, false, false])
  connections[3]?.client.resume()
  await eventually(() => answered.length > 0)
  expect(answered).toEqual([3])
  expect(lines).toEqual(Array(2).fill(expect.objectContaining({ reason: 'client-too-slow' })))
})
