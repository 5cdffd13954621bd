import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { AedesPublishPacket } from 'aedes'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { type LevelBackend, openLevel } from '../../../src/broker/embedded/level-backend.js'
import { carried, propertiesOf, subscriptionIdentifiersOf } from '../../../src/broker/embedded/packet.js'
import { QueueIndex } from '../../../src/broker/embedded/queue-index.js'
import {
  memoryBackend,
  type StorageBackend,
  type StoredSubscription,
} from '../../../src/broker/embedded/storage-backend.js'
import { Store } from '../../../src/broker/embedded/store.js'
import { limits } from './limits.js'

const log = createLog({ level: 'silent', format: 'json' })

const sub = (topic: string, qos: 0 | 1 | 2, options: Partial<StoredSubscription> = {}): StoredSubscription => ({
  topic,
  qos,
  ...options,
})
const id = (...subscriptionIdentifiers: number[]) => ({ subscriptionIdentifiers })

describe('what sessions queue for a topic', () => {
  const find = (subscriptions: StoredSubscription[], publisher?: string) => {
    const index = new QueueIndex()
    index.add('a', subscriptions)
    return index.match('t/1', publisher)
  }
  it.each([
    ['nothing without a filter', [sub('other', 2)], []],
    ['nothing at QoS 0', [sub('t/#', 0)], []],
    ['nothing at QoS 0 with an identifier', [sub('t/#', 0, id(1))], []],
    ['a shared subscription, as the only member of its group', [sub('$share/g/t/1', 1)], [{ qos: 1 }]],
    ['the highest QoS', [sub('t/#', 1), sub('t/1', 2), sub('+/1', 0)], [{ qos: 2 }]],
    ['an identifier', [sub('t/#', 1, id(7))], [{ qos: 1, ...id(7) }]],
    [
      'the identifiers of all, also at QoS 0',
      [sub('t/#', 0, id(1)), sub('t/1', 1, id(2)), sub('+/1', 2)],
      [{ qos: 2, ...id(1, 2) }],
    ],
    ['the same one twice', [sub('t/#', 1, id(1)), sub('t/1', 1, id(1))], [{ qos: 1, ...id(1, 1) }]],
    ['RETAIN, where one keeps it', [sub('t/#', 1, { rap: true }), sub('t/1', 2)], [{ qos: 2, rap: true }]],
  ] as const)('%s', (_, subscriptions, expected) => {
    const found = find([...subscriptions])
    expect(found).toHaveLength(expected.length)
    expect(
      found.map(one => ({ ...one, subscriptionIdentifiers: one.subscriptionIdentifiers?.toSorted() })),
    ).toMatchObject(expected)
  })

  it('nothing of the client itself without local messages, but by its other subscriptions', () => {
    const subscriptions = [sub('t/#', 2, { nl: true, ...id(1) }), sub('t/1', 1, id(2))]
    expect(find(subscriptions, 'b')).toMatchObject([{ qos: 2 }])
    expect(find(subscriptions, 'a')).toMatchObject([{ qos: 1, ...id(2) }])
    expect(find(subscriptions.slice(0, 1), 'a')).toEqual([])
  })

  it('nothing after its filters were replaced or removed', () => {
    const index = new QueueIndex()
    index.add('a', [sub('t/1', 0, id(1)), sub('t/#', 1, id(2))])
    index.add('a', [sub('t/1', 0)])
    expect(index.match('t/1')).toMatchObject([id(2)])
    index.removeAll('a')
    expect(index.match('t/1')).toEqual([])
  })

  it('a thousand overlapping filters with identifiers, at once', () => {
    const index = new QueueIndex()
    // The levels of one topic, each as it is or as `+`.
    const filters = Array.from({ length: 1000 }, (_, number) =>
      Array.from({ length: 10 }, (_level, bit) => (number & (1 << bit) ? '+' : 'x')).join('/'),
    )
    for (let session = 0; session < 10; session++) {
      index.add(
        `${session}`,
        filters.map((topic, index) => sub(topic, 1, id(index + 1))),
      )
    }
    const started = performance.now()
    const found = index.match(Array(10).fill('x').join('/'))
    expect(performance.now() - started).toBeLessThan(100)
    expect(found.map(({ subscriptionIdentifiers = [] }) => subscriptionIdentifiers.length)).toEqual(
      Array(10).fill(1000),
    )
  })
})

describe.each(['memory', 'disk'] as const)('sessions with options in %s', kept => {
  let directory: string
  let storage: StorageBackend
  let store: Store
  const onError = (error: unknown): void => expect.unreachable(String(error))
  const start = async (): Promise<void> => {
    storage = kept === 'disk' ? await openLevel(directory, log) : memoryBackend()
    store = new Store({ storage, limits, log, onError })
    await store.setup({ id: 'mqway-0000000001' })
  }
  const stop = async (): Promise<void> => {
    await store.close()
    if (kept === 'disk') await (storage as LevelBackend).close()
  }
  let counter = 0
  const publish = async (topic: string, publisher?: string): Promise<void> => {
    const packet = { cmd: 'publish', topic, payload: Buffer.from('x'), qos: 1, retain: true, dup: false } as const
    const numbered = { ...packet, brokerId: 'mqway-0000000001', brokerCounter: ++counter }
    const message = { ...numbered, ...carried({ properties: Buffer.from([1, 1]) }) } as AedesPublishPacket
    store.publisherId = publisher
    await store.outgoingEnqueueCombi(await store.subscriptionsByTopic(topic), message)
    await store.takeWrites()?.written
  }
  const queueOf = (client: string): Promise<AedesPublishPacket[]> =>
    Readable.from(storage.queues.read(client, () => {})).toArray()

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    await start()
    for (const client of ['a', 'b', 'c']) store.sessions.open(client)
    await store.addSubscriptions({ id: 'a' }, [sub('t/#', 1, { nl: true, ...id(268_435_455) }), sub('t/1', 0, id(5))])
    await store.addSubscriptions({ id: 'b' }, [sub('t/#', 1, { ...id(7), rap: true })])
    await store.addSubscriptions({ id: 'c' }, [sub('t/#', 1)])
  })
  afterEach(async () => {
    await stop()
    await rm(directory, { recursive: true })
  })

  it('queue a message with the identifiers of each session', async () => {
    await publish('t/1')
    for (const [client, ids, retain] of [
      ['a', [268_435_455, 5], false],
      ['b', [7], true],
      ['c', undefined, false],
    ] as const) {
      const [packet] = await queueOf(client)
      expect([packet && subscriptionIdentifiersOf(packet)?.toSorted((x, y) => y - x), packet?.retain]).toEqual([
        ids,
        retain,
      ])
      expect(packet && propertiesOf(packet)).toEqual({ properties: Buffer.from([1, 1]) })
    }
    const [sent] = await queueOf('b')
    // As it is delivered, without them.
    const { properties: _, ...rest } = sent as AedesPublishPacket
    await store.outgoingUpdate({ id: 'b' }, { ...rest, messageId: 3 })
    const [again] = await queueOf('b')
    expect(again).toMatchObject({ messageId: 3 })
    expect(again && subscriptionIdentifiersOf(again)).toEqual([7])
  })

  it('queue nothing of the client itself, without local messages', async () => {
    await publish('t/2', 'a')
    await publish('t/2', 'b')
    expect([(await queueOf('a')).length, (await queueOf('b')).length]).toEqual([1, 2])
  })

  if (kept === 'disk') {
    it('have them after a restart', async () => {
      const before = store.subscriptionsOf({ id: 'a' })
      expect(before).toMatchObject([
        { topic: 't/#', qos: 1, nl: true, ...id(268_435_455) },
        { topic: 't/1', qos: 0, ...id(5) },
      ])
      await stop()
      await start()
      const after = store.subscriptionsOf({ id: 'a' })
      const byTopic = (x: StoredSubscription, y: StoredSubscription) => x.topic.localeCompare(y.topic)
      expect(after.toSorted(byTopic)).toEqual(before.toSorted(byTopic))
      await publish('t/2', 'a')
      expect([(await queueOf('a')).length, (await queueOf('b')).length]).toEqual([0, 1])
    })
  }
})
