import type { Duplex } from 'node:stream'
import { connectAsync } from 'mqtt'
import { afterEach, expect, it } from 'vitest'
import { internalPeer } from '../../../src/broker/broker.js'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import { decodeMessageProperties, encodeProperties } from '../../../src/mqtt/properties.js'
import { ResponseInbox } from '../../../src/sources/response-inbox.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { eventually } from '../../helpers/wait.js'
import { bounds, Cleanup, log, message, openWithout, refusedVersions, sessionOn, Watched } from '../rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

async function start(version: keyof typeof refusedVersions) {
  const mosquitto = await startMosquitto()
  cleanup.add(() => mosquitto.stop())
  const url = `mqtt://127.0.0.1:${mosquitto.port}`
  const broker = createUpstream(upstreamAt(url), log)
  cleanup.add(() => broker.close())
  const journal = new MemoryJournal({ bounds, log })
  cleanup.add(() => journal.close())
  const inbox = new ResponseInbox()
  const session = await sessionOn(broker, journal, { inbox, open: () => openWithout(broker, refusedVersions[version]) })
  cleanup.add(() => session.close())
  const client = await connectAsync(url, { protocolVersion: 5 })
  cleanup.add(() => client.endAsync(true))
  return { journal, session, watched: new Watched(journal), client }
}

const given = {
  contentType: 'application/json',
  responseTopic: 'answers/1',
  correlationData: Buffer.from([0, 255]),
  userProperties: { a: ['1', '2'], b: 'ü' },
}

it('brings the properties of a client of MQTT 5 to the journal', async () => {
  const { client, watched } = await start('MQTT 5')
  const payload = 'x'.repeat(200_000)
  const sent = { ...given, payloadFormatIndicator: true, messageExpiryInterval: 30 }
  await client.publishAsync('t', payload, { qos: 1, properties: sent })
  const [event] = await watched.count(1)
  expect(event?.payload.toString()).toBe(payload)
  expect(event?.properties && decodeMessageProperties(event.properties)).toEqual({
    ...{ ...given, payloadFormatIndicator: true },
    userProperties: [
      ['a', '1'],
      ['a', '2'],
      ['b', 'ü'],
    ],
  })
  expect(Math.abs((event?.expires ?? 0) - Date.now() - 30_000)).toBeLessThan(5000)
})

it.each(Object.keys(refusedVersions) as (keyof typeof refusedVersions)[])(
  'has the properties of its own message in the journal with %s, and at the broker with MQTT 5',
  async version => {
    const { client, session } = await start(version)
    await client.subscribeAsync('t', { qos: 1 })
    const arrived = new Promise<object | undefined>(resolve =>
      client.on('message', (_topic, _payload, packet) => resolve(packet.properties)),
    )
    const properties = encodeProperties({ contentType: 'text/plain', userProperties: [['a', '1']] })
    const expires = Date.now() + 60_000
    const event = await session.publish(message('t', 'x', { properties, expires }))
    expect(event?.properties).toEqual(properties)
    expect(Math.abs((event?.expires ?? 0) - expires)).toBeLessThanOrEqual(1000)
    const seen = await arrived
    if (version !== 'MQTT 5') expect(seen).toBeUndefined()
    else expect(seen).toMatchObject({ contentType: 'text/plain', userProperties: { a: '1' } })
  },
)

it.each(['MQTT 3.1.1 as a bridge', 'MQTT 3.1.1'] as const)('has no response topics with %s', async version => {
  const { session } = await start(version)
  await expect(session.receiveResponses()).rejects.toMatchObject({ reason: 'requests-unsupported' })
})

it('receives the responses to requests of before it lost its connections', async () => {
  const mosquitto = await startMosquitto()
  cleanup.add(() => mosquitto.stop())
  const url = `mqtt://127.0.0.1:${mosquitto.port}`
  const broker = createUpstream(upstreamAt(url), log)
  cleanup.add(() => broker.close())
  const journal = new MemoryJournal({ bounds, log })
  cleanup.add(() => journal.close())
  const streams: Duplex[] = []
  const open = async (): Promise<Duplex> => {
    const stream = await broker.open(internalPeer)
    streams.push(stream)
    return stream
  }
  const inbox = new ResponseInbox()
  const session = await sessionOn(broker, journal, { inbox, open })
  cleanup.add(() => session.close())
  const received: string[] = []
  const { topic } = inbox.expect(({ payload }) => received.push(payload.toString()))
  await session.receiveResponses()
  for (const stream of streams.splice(0)) stream.destroy()
  const client = await connectAsync(url, { protocolVersion: 5 })
  cleanup.add(() => client.endAsync(true))
  await eventually(async () => {
    await client.publishAsync(topic, 'answer', { qos: 1 })
    return received.length > 0
  })
  expect(received[0]).toBe('answer')
})
