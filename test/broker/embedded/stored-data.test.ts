import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect as connectTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { IConnectPacket, Packet } from 'mqtt-packet'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { startTestGateway, type TestGateway } from '../../helpers/gateway.js'
import { writeStoredData } from '../../helpers/stored-data.js'
import { connectRaw, type RawSession } from './raw-session.js'

/*
 * A data directory of the version before MQTT 5, killed while a client was connected: what that stored, this version reads.
 */

const fixture = new URL('fixtures/data-before-mqtt5.json', import.meta.url)
const storedAt = new Date('2026-11-30T18:44:25Z')
/** The journal's epoch in the fixture. */
const epoch = '0mx3mafgv4pjbwq'
const alice = { username: 'alice', password: Buffer.from('wonderland') }

let directory: string
let gateway: TestGateway

beforeAll(async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: storedAt })
  directory = await mkdtemp(join(tmpdir(), 'mqway-stored-'))
  await writeStoredData(directory, fixture)
  gateway = await startTestGateway({
    data: directory,
    https: { port: 'off' },
    embedded: { maxAnonymousSessions: 10 },
    access: {
      htpasswd: join(directory, 'htpasswd'),
      rules: [
        { to: 'anonymous', publish: ['#'], subscribe: ['#'] },
        { to: 'authenticated', publish: ['#'], subscribe: ['#'] },
      ],
    },
  })
})
afterAll(async () => {
  await gateway.close()
  vi.useRealTimers()
  await rm(directory, { recursive: true })
})

async function open(options: Partial<IConnectPacket> & { clientId: string }) {
  const socket = connectTcp(gateway.mqttPort, '127.0.0.1')
  await once(socket, 'connect')
  return connectRaw({ open: async () => socket }, { clean: false, ...options })
}

async function packets(session: RawSession, count: number): Promise<(Packet | undefined)[]> {
  const found: (Packet | undefined)[] = []
  while (found.length < count) found.push(await session.next())
  return found
}

it('a session has its queue in order, with the packet identifiers of messages in flight, and its subscriptions', async () => {
  const { session, sessionPresent } = await open({ clientId: 'reader:1', ...alice })
  expect(sessionPresent).toBe(true)
  const queued = await packets(session, 5)
  expect(queued).toMatchObject([
    { cmd: 'publish', messageId: 42_239, dup: true, topic: 'jobs/1', payload: Buffer.from('first'), qos: 1 },
    { cmd: 'pubrel', messageId: 42_240 },
    { cmd: 'publish', topic: 'jobs/3', payload: Buffer.from('third'), qos: 1, dup: false, retain: false },
    { cmd: 'publish', topic: 'jobs/4', payload: Buffer.from('fourth'), qos: 2 },
    { cmd: 'publish', topic: 'jobs/5', payload: Buffer.from('fifth'), qos: 2 },
  ])
  session.send({ cmd: 'puback', messageId: 42_239 }).send({ cmd: 'pubcomp', messageId: 42_240 })

  // Its publisher has no PUBREC for the last one: it is a repetition.
  const publisher = await open({ clientId: 'publisher', ...alice })
  expect(publisher.sessionPresent).toBe(true)
  const publish = { cmd: 'publish', qos: 2, retain: false } as const
  publisher.session.send({ ...publish, topic: 'jobs/5', payload: 'fifth', dup: true, messageId: 77 })
  expect(await publisher.session.next()).toMatchObject({ cmd: 'pubrec', messageId: 77 })
  publisher.session.send({ cmd: 'pubrel', messageId: 77 })
  expect(await publisher.session.next()).toMatchObject({ cmd: 'pubcomp', messageId: 77 })
  publisher.session.send({ ...publish, topic: 'jobs/6', payload: 'sixth', dup: false, messageId: 77 })
  expect(await session.next()).toMatchObject({ cmd: 'publish', topic: 'jobs/6', qos: 2 })
  publisher.session.send({ ...publish, qos: 0, topic: 'news/x', payload: 'seventh', dup: false })
  expect(await session.next()).toMatchObject({ cmd: 'publish', topic: 'news/x', qos: 0 })
  session.stream.destroy()
  publisher.session.stream.destroy()
})

it('a session of an anonymous client, too', async () => {
  const { session, sessionPresent } = await open({ clientId: 'plain' })
  expect(sessionPresent).toBe(true)
  expect(await session.next()).toMatchObject({ cmd: 'publish', topic: 'jobs/1', payload: Buffer.from('first'), qos: 1 })
  session.stream.destroy()
})

it('retained messages', async () => {
  const { session } = await open({ clientId: 'new', clean: true })
  expect(await session.subscribe(['state/#'])).toEqual([1])
  const found = (await packets(session, 2)).map(packet => {
    if (packet?.cmd !== 'publish') return packet
    const { topic, payload, qos, retain } = packet
    return [topic, String(payload), qos, retain]
  })
  expect(found.sort()).toEqual([
    ['state/door', 'open', 0, true],
    ['state/lamp', 'on', 1, true],
  ])
  session.stream.destroy()
})

it('the journal, with its cursors', async () => {
  const response = await fetch(`${gateway.urls.http}/v1/poll?topic=jobs/%23&cursor=${epoch}-6&timeout=0`)
  expect(response.status).toBe(200)
  const { events, gap } = (await response.json()) as { events: { topic: string; payload: string }[]; gap: unknown }
  // The gateway was killed: it cannot know what it missed.
  expect(gap).toEqual({ reason: 'missed', cursor: `${epoch}-10`, resumes: `${epoch}-11` })
  expect(events.slice(0, 4).map(({ topic, payload }) => [topic, payload])).toEqual([
    ['jobs/2', 'second'],
    ['jobs/3', 'third'],
    ['jobs/4', 'fourth'],
    ['jobs/5', 'fifth'],
  ])
})
