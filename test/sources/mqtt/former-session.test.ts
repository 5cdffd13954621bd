import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import mqtt, { type MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import { isGapMarker } from '../../../src/journal/event.js'
import { openLevelJournal } from '../../../src/journal/level-journal.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { eventually } from '../../helpers/wait.js'
import { bounds, Cleanup, log, message, sessionOn, Watched } from '../rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

/** The client id that earlier versions made for a data directory. */
function predictable(data: string): string {
  return `mqway-${hostname().replaceAll(/[^0-9a-zA-Z-]/g, '')}-${createHash('sha256').update(data).digest('hex').slice(0, 10)}`
}

/** A mosquitto, a data directory, and the session that an earlier version left: subscribed to `#`, and not connected. */
async function upgrade(topics: readonly string[]) {
  const mosquitto = await startMosquitto({ kind: 'tcp' })
  cleanup.add(() => mosquitto.stop())
  const connect = async (options: mqtt.IClientOptions): Promise<{ client: MqttClient; sessionPresent: boolean }> => {
    const client = mqtt.connect(`mqtt://127.0.0.1:${mosquitto.port}`, {
      protocolVersion: 5,
      reconnectPeriod: 0,
      ...options,
    })
    cleanup.add(() => client.end(true))
    const sessionPresent = await new Promise<boolean>(resolve =>
      client.once('connect', packet => resolve(packet.sessionPresent)),
    )
    return { client, sessionPresent }
  }
  const data = await cleanup.directory()
  const clientId = predictable(data)
  const kept = { clientId, clean: false, properties: { sessionExpiryInterval: 0xffff_ffff } }
  const old = await connect(kept)
  await old.client.subscribeAsync(Object.fromEntries(topics.map(topic => [topic, { qos: 1, rap: true }])))
  await old.client.endAsync()
  await writeFile(join(data, 'push-session.json'), JSON.stringify({ clientId, dialect: 'MQTT 5', topics }))
  const journal = await openLevelJournal({ directory: join(data, 'journal'), bounds, log })
  cleanup.add(() => journal.close())
  await journal.append(message('t', 'from the last run'))
  const watched = new Watched(journal)
  const { client: publisher } = await connect({})
  const broker = createUpstream(upstreamAt(`mqtt://127.0.0.1:${mosquitto.port}`), log)
  const stored = async (): Promise<unknown> => JSON.parse(await readFile(join(data, 'push-client-id.json'), 'utf8'))
  return { connect, kept, data, journal, watched, publisher, broker, stored }
}

describe('the session of an earlier version, under a client id that can be guessed', () => {
  it('gives what it kept to the journal, in order and without a gap, and is ended', async () => {
    const { connect, kept, data, journal, watched, publisher, broker, stored } = await upgrade(['#'])
    const count = 300
    for (let n = 0; n < count; n++) publisher.publish('t', `kept ${n}`, { qos: 1 })
    await publisher.publishAsync('t', 'last one kept', { qos: 1 })

    const opening = sessionOn(broker, journal, { data, config: { topics: ['#'] } })
    // Published all the while: over the former session, over the new one, or over both.
    let isDone = false
    const publishing = (async () => {
      let n = 0
      for (; !isDone; n++) {
        await publisher.publishAsync('t', `new ${n}`, { qos: 1 })
        // Not more than mosquitto keeps for who is slower.
        await new Promise(resolve => setTimeout(resolve, 1))
      }
      return n
    })()
    const session = await opening
    cleanup.add(() => session.close())
    await eventually(() => session.connected)
    await eventually(async () => !('former' in Object(await stored())))
    isDone = true
    const published = await publishing
    await eventually(() => watched.payloads().includes(`new ${published - 1}`))

    const got = watched.payloads()
    expect(watched.events.some(isGapMarker)).toBe(false)
    expect(got.slice(0, count + 1)).toEqual([...Array.from({ length: count }, (_, n) => `kept ${n}`), 'last one kept'])
    expect(new Set(got.slice(count + 1))).toEqual(new Set(Array.from({ length: published }, (_, n) => `new ${n}`)))
    const old = await connect(kept)
    expect(old.sessionPresent).toBe(false)
    expect(await stored()).not.toMatchObject({ clientId: kept.clientId })
  })

  it('that the broker no longer has is a gap, as it was, and is not left behind', async () => {
    const { connect, kept, data, journal, watched, broker, stored } = await upgrade(['#'])
    const gone = await connect({ ...kept, clean: true, properties: { sessionExpiryInterval: 0 } })
    await gone.client.endAsync()
    const session = await sessionOn(broker, journal, { data, config: { topics: ['#'] } })
    cleanup.add(() => session.close())
    await eventually(() => session.connected)
    await watched.count(1)
    expect(watched.events.map(isGapMarker)).toEqual([true])
    await eventually(async () => !('former' in Object(await stored())))
    expect((await connect(kept)).sessionPresent).toBe(false)
  })

  it('with fewer topics than there are now is a gap, behind what it kept', async () => {
    const { data, journal, watched, publisher, broker } = await upgrade(['a'])
    await publisher.publishAsync('a', 'kept', { qos: 1 })
    const session = await sessionOn(broker, journal, { data, config: { topics: ['a', 'b'] } })
    cleanup.add(() => session.close())
    await eventually(() => session.connected)
    await watched.count(2)
    expect(watched.events.map(isGapMarker)).toEqual([false, true])
  })
})
