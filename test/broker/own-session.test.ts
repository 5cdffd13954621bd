import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Broker, ownPeer } from '../../src/broker/broker.js'
import { createEmbedded, type EmbeddedBroker } from '../../src/broker/embedded.js'
import { OwnBacklog } from '../../src/broker/own-backlog.js'
import { createLog } from '../../src/log.js'
import { eventually } from '../helpers/wait.js'
import { limits } from './limits.js'
import { connect, type Session } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })

let directory: string
let broker: EmbeddedBroker
/** The broker, as the program itself connects with it. */
let own: Broker
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mqway-'))
  broker = await createEmbedded({ ...limits, maxQueuedBytes: 64 * 1024, data: directory }, log)
  own = { ...broker, open: () => broker.open(ownPeer) }
})
afterEach(async () => {
  await broker.close()
  await rm(directory, { recursive: true })
})

describe('the program’s own session, when it reads slowly', () => {
  const payload = Buffer.alloc(1000, 'x')

  async function flood(publisher: Session, count: number): Promise<void> {
    const all: Promise<unknown>[] = []
    for (let index = 0; index < count; index++) all.push(publisher.client.publishAsync(`t/${index}`, payload))
    await Promise.all(all)
  }

  it('gets 20 MB of QoS 0 that a client publishes in one turn, all of it and in order', async () => {
    const reader = await connect(own)
    await reader.subscribe('#', 1)
    const publisher = await connect(broker)
    const flooded = flood(publisher, 20_000)
    for (let index = 0; index < 20_000; index++) expect((await reader.next()).topic).toBe(`t/${index}`)
    await flooded
    await Promise.all([reader.end(), publisher.end()])
  })

  it('holds nobody up who only subscribes, and others are not spared for it', async () => {
    const reader = await connect(own)
    await reader.subscribe('#', 1)
    const slow = await connect(broker)
    await slow.subscribe('#', 0)
    slow.stream.pause()
    const publisher = await connect(broker)
    const flooded = flood(publisher, 20_000)
    for (let index = 0; index < 20_000; index++) await reader.next()
    await flooded
    expect(broker.figures().publishesDropped).toBeGreaterThan(0)
    await Promise.all([reader.end(), publisher.end()])
    slow.stream.destroy()
  })
})

describe('what waits for the program’s own session', () => {
  const options = { mark: 10, patience: 60_000 }

  it('lets pass what comes while there is little, at once', () => {
    const backlog = new OwnBacklog(options)
    backlog.add({ waitingBytes: 9 })
    let passed = 0
    backlog.admit(() => passed++)
    expect(passed).toBe(1)
    expect(backlog.held).toBe(0)
  })

  it('holds what comes while there is much, and lets it go in order when it has been read', async () => {
    const backlog = new OwnBacklog(options)
    const end = { waitingBytes: 10 }
    backlog.add(end)
    const passed: number[] = []
    for (let index = 0; index < 1000; index++) backlog.admit(() => passed.push(index))
    expect(passed).toEqual([])
    backlog.progressed()
    await new Promise(setImmediate)
    expect(passed).toEqual([])
    end.waitingBytes = 0
    backlog.progressed()
    backlog.admit(() => passed.push(1000))
    await eventually(() => backlog.held === 0)
    expect(passed).toEqual(Array.from({ length: 1001 }, (_, index) => index))
  })

  it('lets all go when the session is gone', async () => {
    const backlog = new OwnBacklog(options)
    const end = { waitingBytes: 10 }
    backlog.add(end)
    let passed = 0
    backlog.admit(() => passed++)
    backlog.remove(end)
    await eventually(() => passed === 1)
  })

  it('lets all go when nothing was read for too long, until something is', async () => {
    const backlog = new OwnBacklog({ mark: 10, patience: 20 })
    backlog.add({ waitingBytes: 10 })
    let passed = 0
    backlog.admit(() => passed++)
    expect(backlog.protects).toBe(true)
    await eventually(() => passed === 1)
    expect(backlog.protects).toBe(false)
    backlog.admit(() => passed++)
    expect(passed).toBe(2)
    backlog.progressed()
    expect(backlog.protects).toBe(true)
    backlog.admit(() => passed++)
    expect(passed).toBe(2)
  })
})

describe('a session that gets RETAIN as it was published', () => {
  it.each([1, 2] as const)('is rid of a live message of QoS %i with RETAIN when it has acknowledged it', async qos => {
    const connectOptions = { clientId: 'bridge', clean: false, protocolVersion: 4 as const, bridgeMode: true }
    const first = await connectRaw(broker, connectOptions)
    await first.session.subscribe(['#'])
    const publisher = await connect(broker)
    await publisher.publish('state', 'on', { qos, retain: true })
    const got = await first.session.next()
    expect(got).toMatchObject({ cmd: 'publish', topic: 'state', retain: true, qos: 1 })
    first.session.send({ cmd: 'puback', messageId: got?.messageId ?? 0 })
    await publisher.publish('news', 'x', { qos })
    const next = await first.session.next()
    expect(next).toMatchObject({ topic: 'news', retain: false })
    first.session.send({ cmd: 'puback', messageId: next?.messageId ?? 0 })
    await first.session.end()

    await publisher.publish('state', 'off', { qos, retain: true })
    await publisher.publish('news', 'y', { qos })
    const again = await connectRaw(broker, connectOptions)
    expect(again.sessionPresent).toBe(true)
    expect(await again.session.next()).toMatchObject({ topic: 'state', payload: Buffer.from('off'), retain: true })
    expect(await again.session.next()).toMatchObject({ topic: 'news', payload: Buffer.from('y'), retain: false })
    await Promise.all([again.session.end(), publisher.end()])
  })
})
