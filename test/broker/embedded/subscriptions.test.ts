import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { memoryBackend, type StorageBackend } from '../../../src/broker/embedded/storage-backend.js'
import { Store } from '../../../src/broker/embedded/store.js'
import { limits } from './limits.js'
import { connect } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })
const refused = 0x80

describe.each(['memory', 'disk'])('subscriptions, kept in %s', kept => {
  let directory: string
  let broker: EmbeddedBroker
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    broker = await createEmbedded({ ...limits, data: kept === 'disk' ? directory : 'none' }, log)
  })
  afterEach(async () => {
    await broker.close()
    await rm(directory, { recursive: true })
  })

  it.each([true, false])('end at the limit, clean=%s: the rest of a packet, and later ones, get 0x80', async clean => {
    const { session } = await connectRaw(broker, { clientId: 'greedy', clean })
    const filters = Array.from({ length: 1500 }, (_, index) => `t/${index}`)
    expect(await session.subscribe(filters)).toEqual(filters.map((_, index) => (index < 1000 ? 1 : refused)))
    expect(await session.subscribe(['one/more', 't/7'])).toEqual([refused, 1])
    session.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: ['t/7'] })
    expect(await session.next()).toMatchObject({ cmd: 'unsuback' })
    expect(await session.subscribe(['one/more', 't/7'])).toEqual([1, refused])
    await session.end()
  })

  it('twice in one packet are one: after UNSUBSCRIBE, nothing is queued for the session', async () => {
    const { session } = await connectRaw(broker, { clientId: 'twice', clean: false })
    expect(await session.subscribe(['a', 'a', 'b'])).toEqual([1, 1, 1])
    session.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: ['a'] })
    expect(await session.next()).toMatchObject({ cmd: 'unsuback' })
    await session.end()
    const publisher = await connect(broker)
    await publisher.publish('a', 'not for it', { qos: 1 })
    await publisher.publish('b', 'for it', { qos: 1 })
    const { session: returned } = await connectRaw(broker, { clientId: 'twice', clean: false })
    expect(await returned.next()).toMatchObject({ cmd: 'publish', topic: 'b' })
    await Promise.all([returned.end(), publisher.end()])
  })

  it('of an UNSUBSCRIBE end also where the SUBSCRIBE before it takes several time slices', async () => {
    const { session } = await connectRaw(broker, { clientId: 'hasty', clean: false })
    const filters = Array.from({ length: 900 }, (_, index) => `t/${index}`)
    const subscriptions = filters.map(topic => ({ topic, qos: 1 as const }))
    session.stream.cork()
    session.send({ cmd: 'subscribe', messageId: 1, subscriptions })
    session.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: filters.slice(1) })
    session.send({ cmd: 'unsubscribe', messageId: 3, unsubscriptions: ['t/0'] })
    session.send({ cmd: 'subscribe', messageId: 4, subscriptions: [{ topic: 'end', qos: 1 }] })
    session.stream.uncork()
    for (const cmd of ['suback', 'unsuback', 'unsuback', 'suback']) expect(await session.next()).toMatchObject({ cmd })
    const publisher = await connect(broker)
    for (const topic of ['t/0', 't/899', 'end']) await publisher.publish(topic, '', { qos: 1 })
    expect(await session.next()).toMatchObject({ topic: 'end' })
    await Promise.all([session.end(), publisher.end()])
  })

  it('with a wildcard in the wrong place get 0x80, the others beside them are granted and restored', async () => {
    const { session } = await connectRaw(broker, { clientId: 'sloppy', clean: false })
    expect(await session.subscribe(['a+', 'fine', 'a#'])).toEqual([refused, 1, refused])
    await session.end()
    const publisher = await connect(broker)
    await publisher.publish('fine', 'kept', { qos: 1 })
    const again = await connectRaw(broker, { clientId: 'sloppy', clean: false })
    expect(again.sessionPresent).toBe(true)
    expect(await again.session.next()).toMatchObject({ cmd: 'publish', topic: 'fine' })
    await Promise.all([again.session.end(), publisher.end()])
  })

  it('may be none: the session is there all the same', async () => {
    const first = await connectRaw(broker, { clientId: 'quiet', clean: false })
    expect(first.sessionPresent).toBe(false)
    await first.session.end()
    const second = await connectRaw(broker, { clientId: 'quiet', clean: false })
    expect(second.sessionPresent).toBe(true)
    expect(await second.session.subscribe(['$mqway/none'])).toEqual([refused])
    await second.session.end()
  })

  it('of a session bring a retained message of QoS 2 to the end of its handshake', async () => {
    const publisher = await connect(broker)
    await publisher.publish('state', 'kept', { qos: 2, retain: true })
    const { session } = await connectRaw(broker, { clientId: 'reader', clean: false })
    await session.subscribe(['state'], 2)
    const packet = await session.next()
    const messageId = packet?.cmd === 'publish' ? packet.messageId : undefined
    session.send({ cmd: 'pubrec', messageId: messageId ?? 0 })
    expect(await session.next()).toMatchObject({ cmd: 'pubrel', messageId })
    session.send({ cmd: 'pubrec', messageId: 4711 })
    expect(await session.next()).toMatchObject({ cmd: 'pubrel', messageId: 4711 })
    await Promise.all([session.end(), publisher.end()])
  })

  it.each([
    ['`#` in the middle', 'a/#/b'],
    ['too many levels', '/'.repeat(60_000)],
  ])('with %s get 0x80, and the others beside them are granted', async (_, filter) => {
    const { session } = await connectRaw(broker, { clientId: 'wrong', clean: false })
    expect(await session.subscribe(['fine', filter])).toEqual([1, 128])
    await session.end()
  })
})

describe('the store', () => {
  const client = { id: 'client' }
  const storeOn = (storage: Partial<StorageBackend> = {}) => {
    const onError = (error: unknown): void => expect.unreachable(String(error))
    return new Store({ storage: { ...memoryBackend(), ...storage }, limits, log, onError })
  }

  it('queues for nothing that could not be stored', async () => {
    const store = storeOn({ addSubscriptions: () => Promise.reject(new Error('disk full')) })
    await expect(store.addSubscriptions(client, [{ topic: 'a', qos: 1 }])).rejects.toThrow('disk full')
    expect(await store.subscriptionsByTopic('a')).toEqual([])
  })

  it('removes stored filters to which nobody can subscribe', async () => {
    const removed: string[] = []
    const store = storeOn({
      sessions: [{ id: 'client', owner: undefined, network: undefined, seen: Date.now(), queued: 0, bytes: 0 }],
      allSubscriptions: async function* () {
        yield ['client', ['a/#/b', 'fine'].map(topic => ({ topic, qos: 1 as const }))] as const
      },
      removeSubscriptions: async (_id, filters) => void removed.push(...filters),
    })
    await store.setup({ id: 'broker' })
    expect(store.subscriptionsOf(client)).toMatchObject([{ topic: 'fine' }])
    expect(removed).toEqual(['a/#/b'])
  })

  it('does not queue for a filter that was unsubscribed right after', async () => {
    const store = storeOn()
    await Promise.all([
      store.addSubscriptions(client, [{ topic: 'a', qos: 1 }]),
      store.removeSubscriptions(client, ['a']),
    ])
    expect(await store.subscriptionsByTopic('a')).toEqual([])
  })
})
