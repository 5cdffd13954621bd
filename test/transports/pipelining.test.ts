import { once } from 'node:events'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { registerPoll } from '../../src/transports/poll/poll.js'
import { registerEvents } from '../../src/transports/sse/sse.js'
import { eventually, settled } from '../helpers/wait.js'
import { type Rig, startRig } from './rig.js'

let rig: Rig
beforeEach(async () => {
  rig = await startRig({
    register: (app, options) => {
      registerPoll(app, options)
      registerEvents(app, options)
    },
    onUpgrade: () => (_request, socket) => socket.end('HTTP/1.1 101 Switching Protocols\r\n\r\n'),
  })
})
afterEach(() => rig.close())

const get = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${more}\r\n`
const events = get('/v1/events?topic=a')
const poll = get('/v1/poll?topic=a&timeout=60&device=d')
const wrong = get('/v1/events')
const upgradeTo = (protocol: string): string =>
  get(
    '/',
    `Connection: Upgrade\r\nUpgrade: ${protocol}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${'A'.repeat(22)}==\r\n`,
  )

/** Sends all in one write, and keeps what comes. */
function send(requests: string): {
  readonly socket: Socket
  readonly text: () => string
  readonly answers: () => string[]
} {
  const socket = rig.tcp()
  let text = ''
  socket.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1')
  })
  socket.write(requests)
  return { socket, text: () => text, answers: () => text.match(/HTTP\/1\.1 \d{3}/g)?.map(line => line.slice(9)) ?? [] }
}

/** The payloads of the events in a text, in order. */
const payloads = (text: string): string[] => [...text.matchAll(/"payload":"(\w+)"/g)].map(([, payload = '']) => payload)

const expectNothingLeft = async (): Promise<void> => {
  await eventually(() => rig.hub.counters.subscribers === 0)
  await eventually(() => rig.limits.open === 0)
  expect([rig.options.connections.size, rig.attendances.every(({ left }) => left)]).toEqual([0, true])
}

it('polls behind another one on their connection begin one after the other, and end with it', async () => {
  const { socket } = send(poll.repeat(20))
  await eventually(() => rig.hub.counters.subscribers === 1)
  await settled(() => rig.hub.counters.subscribers)
  expect(rig.limits.open).toBe(1)
  socket.destroy()
  await expectNothingLeft()
})

it.each([
  ['an answer that is there at once', wrong],
  ['another stream', events],
  ['a poll', poll],
  ['many of them', (poll + events + wrong).repeat(5)],
  ['half a request', wrong.slice(0, 20)],
  ['what Node answers itself', get('/', 'Expect: nothing\r\n')],
  ['what Node answers itself, and closes', 'GET / HTTP/1.1\r\n\r\n'],
])('what follows an event stream is not answered within it: %s', async (_, more) => {
  const { socket, text, answers } = send(events + more)
  await eventually(() => text().includes('\nid: '))
  for (const payload of ['one', 'two', 'three']) await rig.publish('a', payload)
  socket.write(wrong)
  await eventually(() => text().includes('"three"'))
  await settled(() => text().length)
  expect([answers(), payloads(text())]).toEqual([['200'], ['one', 'two', 'three']])
  socket.destroy()
  await expectNothingLeft()
})

it('an event stream behind a poll begins when that is answered, and is the last', async () => {
  const { socket, text, answers } = send(poll + events + wrong)
  await eventually(() => rig.hub.counters.subscribers === 1)
  await eventually(() => rig.hub.counters.catchingUp === 0)
  expect([text(), rig.limits.open]).toEqual(['', 1])
  await rig.publish('a', 'one')
  await eventually(() => text().includes('\nid: '))
  for (const payload of ['two', 'three']) await rig.publish('a', payload)
  await eventually(() => text().includes('"three"'))
  socket.write(wrong)
  await settled(() => text().length)
  expect([answers(), payloads(text())]).toEqual([
    ['200', '200'],
    ['one', 'two', 'three'],
  ])
  expect(text()).toMatch(/connection: close/i)
  const closed = once(socket, 'close')
  rig.options.connections.close()
  await closed
  expect(text()).toMatch(/event: end.*\r\n0\r\n\r\n$/s)
  await expectNothingLeft()
})

it('nothing is kept for an event stream that waits behind a poll', async () => {
  const { socket, text, answers } = send(get('/v1/poll?topic=b&timeout=60') + events)
  await eventually(() => rig.hub.counters.subscribers === 1)
  for (let count = 0; count < 100; count++) await rig.publish('a', 'x'.repeat(50_000))
  await rig.publish('b', 'now')
  await eventually(() => answers().length === 2)
  expect(payloads(text())).toEqual(['now'])
  expect(rig.hub.counters.cutOff).toBe(0)
  socket.destroy()
  await expectNothingLeft()
})

it.each([
  ['websocket', poll],
  ['websocket', events],
  ['h2c', poll],
  ['h2c', events],
  ['h2c', get('/%')],
  ['h2c', get(`/${'x'.repeat(9000)}`)],
])('an upgrade (to %s) that did not wait for its turn ends the connection', async (protocol, before) => {
  const { socket, answers } = send(before + upgradeTo(protocol))
  await once(socket, 'close')
  // What was complete by then may have left.
  expect(['', '400']).toContain(answers().join())
  await expectNothingLeft()
  // The gateway is there for others.
  const other = send(wrong)
  await eventually(() => other.answers().length === 1)
})

it.each(['websocket', 'h2c'])('an upgrade (to %s) that waited for the answers before it is led on', async protocol => {
  const { socket, text, answers } = send(wrong)
  await eventually(() => text().endsWith('}'))
  socket.write(upgradeTo(protocol))
  await eventually(() => answers().length === 2)
})

it('what is no HTTP behind an event stream ends the connection, and leaves nothing', async () => {
  const { socket } = send(`${events}no HTTP at all\r\n\r\n`)
  await once(socket, 'close')
  await expectNothingLeft()
})
