import { connect } from 'node:tls'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { registerPoll } from '../../src/transports/poll/poll.js'
import { registerEvents } from '../../src/transports/sse/sse.js'
import { eventually } from '../helpers/wait.js'
import { openSource, openSource2, type TestSource } from './event-source.js'
import { RawHttp2 } from './raw-http2.js'
import { type Rig, startRig } from './rig.js'

const [noError, cancel] = [0, 8]
const events = '/v1/events?topic=a'
const poll = '/v1/poll?topic=a&timeout=60'
const large = 'x'.repeat(10_000)

describe('a client', () => {
  let rig: Rig
  let other: TestSource
  const clients: RawHttp2[] = []
  beforeEach(async () => {
    rig = await startRig({
      register: (app, options) => {
        registerPoll(app, options)
        registerEvents(app, options)
      },
      push: { maxQueuedEvents: 100 },
    })
    // Somebody to whom nothing of all this makes a difference.
    other = await openSource(rig.url + events)
    await other.live()
  })
  afterEach(async () => {
    for (const { socket } of clients.splice(0)) socket.destroy()
    await rig.close()
  })

  const open = async (window: number): Promise<RawHttp2> => {
    const client = await RawHttp2.open(rig.secureUrl, window)
    clients.push(client)
    return client
  }

  /** That the other one has everything, and nothing is left of anybody else. */
  const expectOnlyOther = async (published: number): Promise<void> => {
    await other.messages(published)
    expect(other.payloads().map(payload => Number.parseInt(String(payload), 10))).toEqual([...Array(published).keys()])
    await eventually(() => rig.hub.counters.subscribers === 1 && rig.limits.open === 1)
    expect([rig.options.connections.size, rig.attendances.filter(({ left }) => !left).length]).toEqual([1, 1])
  }

  it('that never reads an event stream of HTTP/1.1 over TLS is cut off', async () => {
    const { hostname: host, port } = new URL(rig.secureUrl)
    const socket = connect({ host, port: Number(port), ALPNProtocols: ['http/1.1'], rejectUnauthorized: false })
    onTestFinished(() => void socket.destroy())
    socket.on('error', () => {})
    socket.write(`GET ${events} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
    await eventually(() => rig.hub.counters.subscribers === 2)
    let published = 0
    while (rig.hub.counters.cutOff === 0) await rig.publish('a', `${published++} ${large}`)
    await expectOnlyOther(published)
    // Also with the bytes that it does not take.
    while (!socket.destroyed) {
      socket.read()
      await new Promise(setImmediate)
    }
  })

  it.each([0, 1, 1000])(
    'that gives each stream of HTTP/2 room for %d bytes is cut off, on all of them',
    async window => {
      const client = await open(window)
      for (let left = 50; left > 0; left--) client.get(events)
      await eventually(() => rig.hub.counters.subscribers === 51)
      let published = 0
      while (rig.hub.counters.cutOff < 50) await rig.publish('a', `${published++} ${large}`)
      await expectOnlyOther(published)
      expect([client.isSentAway, client.socket.destroyed]).toEqual([false, false])
      // It may begin again.
      client.get(events)
      await eventually(() => rig.hub.counters.subscribers === 2)
    },
  )

  it('that resets streams of HTTP/2 while their first bytes are on their way leaves none behind', async () => {
    const sources = await Promise.all(Array.from({ length: 20 }, () => openSource2(rig.http2(), events)))
    for (const source of sources) source.leave()
    await expectOnlyOther(0)
  })

  it.each([
    ['event streams', events, cancel],
    ['event streams', events, noError],
    ['polls', poll, cancel],
    ['polls', poll, noError],
  ])('that opens %s over HTTP/2 and resets them without end is sent away', async (_, path, code) => {
    const client = await open(65_535)
    let published = 0
    while (!client.isSentAway) {
      for (let left = 100; left > 0; left--) client.reset(client.get(path), code)
      await rig.publish('a', `${published++}`)
    }
    await expectOnlyOther(published)
  })

  it.each([
    ['pings', (client: RawHttp2) => client.ping()],
    ['settings', (client: RawHttp2) => client.settings(1000)],
  ])('that sends %s of HTTP/2 without end and reads none of the answers is ended', async (_, send) => {
    const client = await open(1000)
    client.socket.pause()
    let published = 0
    while (!client.socket.destroyed) {
      for (let left = 1000; left > 0; left--) send(client)
      await rig.publish('a', `${published++}`)
    }
    await expectOnlyOther(published)
  })
})
