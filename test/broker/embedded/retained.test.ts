import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { AedesPublishPacket } from 'aedes'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { openLevel } from '../../../src/broker/embedded/level-backend.js'
import { Retained } from '../../../src/broker/embedded/retained.js'
import { RetainedQuota } from '../../../src/broker/embedded/retained-quota.js'
import { RetainedMemory, type RetainedStorage } from '../../../src/broker/embedded/storage-backend.js'

const log = createLog({ level: 'silent', format: 'json' })
const bounds = { maxRetainedMessages: 100, maxRetainedBytes: 64 * 1000 }

function message(topic: string, payload: string | Buffer = topic): AedesPublishPacket {
  return {
    cmd: 'publish',
    topic,
    payload: Buffer.from(payload),
    qos: 1,
    retain: true,
    dup: false,
    brokerId: 'mqway-0000000001',
    brokerCounter: 1,
  }
}

async function find(retained: Retained, filters: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const { topics } of retained.scan(filters, () => true)) {
    for (const { topic, payload } of await retained.read(topics)) {
      expect(String(payload)).toBe(topic)
      found.push(topic)
    }
  }
  return found.sort()
}

describe.each(['memory', 'disk'])('retained messages in %s', kept => {
  let directory: string
  let storage: RetainedStorage
  let close: () => Promise<void>
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    const base = kept === 'disk' ? await openLevel(directory, log) : undefined
    storage = base?.retained ?? new RetainedMemory()
    close = async () => base?.close()
  })
  afterEach(async () => {
    await close()
    await rm(directory, { recursive: true })
  })

  it.each([
    [['a/1'], ['a/1']],
    [
      ['a/1', 'a/2', 'a/1'],
      ['a/1', 'a/2'],
    ],
    [['none'], []],
    [['a/+'], ['a/1', 'a/2', 'a/ü']],
    [['a/#'], ['a', 'a/1', 'a/1/x', 'a/2', 'a/ü']],
    [
      ['a/1/#', 'a/#', 'b/1'],
      ['a', 'a/1', 'a/1/x', 'a/2', 'a/ü', 'b/1'],
    ],
    [['#'], ['a', 'a!', 'a/1', 'a/1/x', 'a/2', 'a/ü', 'ab', 'b/1']],
    [
      ['$SYS/#', '$x/+', '+/2'],
      ['$SYS/a', '$x/1', 'a/2'],
    ],
  ])('are found for %j, also by the next run', async (filters, expected) => {
    const retained = new Retained({ storage, bounds, log })
    for (const topic of ['a', 'a!', 'a/1', 'a/1/x', 'a/2', 'a/ü', 'ab', 'b/1', '$x/1', '$SYS/a', 'gone'])
      await retained.store(message(topic), 'somebody')
    await retained.store(message('gone', ''), 'somebody')
    expect(await find(retained, filters)).toEqual(expected)
    const next = new Retained({ storage, bounds, log })
    await next.load()
    expect(await find(next, filters)).toEqual(expected.filter(topic => !topic.startsWith('$SYS/')))
  })

  it('are loaded within the bounds; those left out stay in the storage, and are named in the log', async () => {
    const warnings: unknown[] = []
    const noted = createLog({ level: 'silent', format: 'json' })
    noted.warn = (...args: unknown[]) => warnings.push(args[0])
    for (let i = 0; i < 10; i++) await storage.put(message(`topic/${i}`))
    const retained = new Retained({ storage, bounds: { ...bounds, maxRetainedMessages: 6 }, log: noted })
    await retained.load()
    expect(retained.figures()).toMatchObject({ messages: 6, bytes: 6 * 64 })
    expect(warnings).toEqual([{ topics: ['topic/6', 'topic/7', 'topic/8'], count: 4, complete: true }])
    await retained.store(message('topic/9', ''), 'somebody')
    const next = new Retained({ storage, bounds, log })
    await next.load()
    expect(next.figures().messages).toBe(9)
  })

  it('are refused beyond a publisher’s half, while others have room; an earlier one goes with one that is too large', async () => {
    const retained = new Retained({ storage, bounds, log })
    const large = Buffer.alloc(20_000)
    expect(retained.store(message('a', large), 'greedy').isKept).toBe(true)
    expect(retained.store(message('b', large), 'greedy').isKept).toBe(false)
    expect(retained.store(message('b', large), 'other').isKept).toBe(true)
    const tooLarge = retained.store(message('a', Buffer.alloc(50_000)), 'greedy')
    expect(tooLarge.isKept).toBe(true)
    await tooLarge.written
    expect(retained.figures()).toMatchObject({ messages: 1, refused: 2 })
    expect(await storage.read(['a'])).toEqual([])
  })
})

describe('the quota of retained messages', () => {
  it('keeps within its bounds, and always takes a message no larger than the one it replaces', () => {
    const step = fc.record({
      topic: fc.nat(30).map(String),
      size: fc.nat(40),
      publisher: fc.constantFrom('a', 'b', 'c'),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), steps => {
        const quota = new RetainedQuota({ maxRetainedMessages: 16, maxRetainedBytes: 200 })
        for (const { topic, size, publisher } of steps) {
          const before = quota.entries.get(topic)
          const fits = quota.replace(topic, size, publisher)
          if (before && size <= before.size) expect(fits).toBe(true)
          expect(quota.entries.get(topic)?.size).toBe(fits ? size : undefined)
          expect(quota.entries.size).toBeLessThanOrEqual(16)
          expect(quota.bytes).toBeLessThanOrEqual(200)
        }
        for (let topic = 0; topic <= 30; topic++) quota.remove(String(topic))
        expect([quota.entries.size, quota.bytes]).toEqual([0, 0])
      }),
      { numRuns: 500 },
    )
  })

  it('leaves room for a new publisher, however many have what they can get', () => {
    const quota = new RetainedQuota({ maxRetainedMessages: 1000, maxRetainedBytes: 1e6 })
    for (const publisher of ['a', 'b', 'c', 'd']) {
      let stored = 0
      while (quota.replace(`${publisher}/${stored}`, 1, publisher)) stored++
      expect(stored).toBeGreaterThan(30)
      expect(stored).toBeLessThanOrEqual(500)
    }
  })
})
