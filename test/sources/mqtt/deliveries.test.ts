import { expect, it } from 'vitest'
import type { Connection } from '../../../src/mqtt/connection.js'
import type { ReceivedMessage } from '../../../src/mqtt/publish-packet.js'
import { Deliveries } from '../../../src/sources/mqtt/deliveries.js'

/** The part of a connection that deliveries use. */
function fakeConnection(sessionPresent = true) {
  const acknowledged: number[] = []
  const connection = { sessionPresent, closed: false, acknowledge: (messageId: number) => acknowledged.push(messageId) }
  return { connection: connection as unknown as Connection, acknowledged, close: () => (connection.closed = true) }
}

const message = (messageId: number, text: string, dup = false) =>
  ({ messageId, dup, topic: 't', payload: Buffer.from(text), qos: 1, retain: false }) as ReceivedMessage

async function connected(deliveries: Deliveries, sessionPresent = true) {
  const opened = fakeConnection(sessionPresent)
  await deliveries.connect(
    async () => opened.connection,
    () => {},
  )
  /** Receives a message and writes it. @returns whether it is new */
  const write = (received: ReceivedMessage): boolean => {
    const acknowledge = deliveries.receive(received, opened.connection)
    acknowledge?.()
    return acknowledge !== undefined
  }
  return { ...opened, write }
}

it('A message comes once though the broker ended before it read its acknowledgement', async () => {
  const freed: number[] = []
  const deliveries = new Deliveries(new Map(), messageId => freed.push(messageId))
  const first = await connected(deliveries)
  expect([first.write(message(1, 'a')), first.write(message(2, 'b'))]).toEqual([true, true])
  expect([first.acknowledged, freed]).toEqual([[1, 2], []])
  first.close()
  const second = await connected(deliveries)
  expect(second.write(message(2, 'b', true))).toBe(false)
  expect(second.acknowledged).toEqual([2])
  expect(second.write(message(3, 'b'))).toBe(true)
  expect(second.acknowledged).toEqual([2, 3])
  expect(freed).toEqual([1])
  second.close()
  const third = await connected(deliveries)
  expect(third.write(message(2, 'b', true))).toBe(false)
})

it('A message with an identifier of before and other content is another one', async () => {
  const deliveries = new Deliveries()
  const first = await connected(deliveries)
  first.write(message(1, 'a'))
  first.close()
  const second = await connected(deliveries)
  expect(second.write(message(1, 'b', true))).toBe(true)
})

it('A broker that gives identifiers again at once may send the same content again', async () => {
  const freed: number[] = []
  const deliveries = new Deliveries(new Map(), messageId => freed.push(messageId))
  const first = await connected(deliveries)
  for (const text of ['on', 'on']) expect(first.write(message(1, text))).toBe(true)
  expect(freed).toEqual([1, 1])
  first.close()
  const second = await connected(deliveries)
  expect(second.write(message(1, 'on', true))).toBe(true)
})

it('Nothing is remembered where the broker has lost the session', async () => {
  const deliveries = new Deliveries()
  const first = await connected(deliveries)
  first.write(message(1, 'a'))
  first.close()
  const second = await connected(deliveries, false)
  expect(second.write(message(1, 'a', true))).toBe(true)
})

it('The newest thousand acknowledged messages are remembered', async () => {
  const freed: number[] = []
  const deliveries = new Deliveries(new Map(), messageId => freed.push(messageId))
  const first = await connected(deliveries)
  for (let messageId = 1; messageId <= 1500; messageId++) first.write(message(messageId, 'a'))
  expect(freed).toEqual(Array.from({ length: 500 }, (_, index) => index + 1))
})
