import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Event } from '../../../src/journal/event.js'
import { TakenOver } from '../../../src/mqtt/broker-responses.js'
import type { Message } from '../../../src/mqtt/message.js'
import { backoff } from '../../../src/mqtt/reconnecting-connection.js'
import { LearnedSizeLimit } from '../../../src/sources/mqtt/learned-size-limit.js'
import { type PendingPublish, PendingPublishes } from '../../../src/sources/mqtt/pending-publishes.js'
import { TakeoverDetector } from '../../../src/sources/mqtt/takeover-detector.js'

describe('the wait before the next attempt', () => {
  it('is short at first, never over 30 s, and at random no less than half', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e6 }), fc.double({ min: 0, max: 1, noNaN: true }), (attempts, random) => {
        const wait = backoff(attempts, random)
        expect(wait).toBeGreaterThanOrEqual(100)
        expect(wait).toBeLessThanOrEqual(30_000)
        expect(wait).toBeGreaterThanOrEqual(backoff(attempts, 0) / 2)
      }),
    )
    expect([1, 2, 3, 7, 8].map(attempts => backoff(attempts, 0))).toEqual([200, 1000, 2000, 30_000, 30_000])
  })
})

describe('publications under way', () => {
  const message = (payload: string, retain = false) =>
    ({ topic: 't', payload: Buffer.from(payload), qos: 1, retain }) as const
  const late = { maxLate: 2, maxLateBytes: 1000 }
  const event = { id: 'e' } as Event
  /** As soon as there is room. */
  const expectLater = async (pending: PendingPublishes, sent: Message): Promise<PendingPublish> => {
    for (;;) {
      try {
        return pending.add(sent)
      } catch {
        await new Promise(setImmediate)
      }
    }
  }

  it('are taken in order, by payload and RETAIN', () => {
    const pending = new PendingPublishes({ maxCount: 10, maxBytes: 1000, timeout: 10_000, ...late })
    const [first, second, retained] = [message('a'), message('a'), message('a', true)].map(m => pending.add(m))
    expect(pending.take(message('b'), true)).toBeUndefined()
    expect(pending.take(message('a', true), true)).toBe(retained)
    expect(pending.take(message('a'), true)).toBe(first)
    expect(pending.take(message('a', true), true)).toBeUndefined()
    expect(pending.take(message('a', true), false)).toBe(second)
    for (const each of [first, second, retained]) each?.fail(new Error('the end'))
  })

  it('are bounded in number and bytes', () => {
    const pending = new PendingPublishes({ maxCount: 2, maxBytes: 100, timeout: 10_000, ...late })
    const large = pending.add(message('x'.repeat(500)))
    expect(() => pending.add(message('a'))).toThrow(expect.objectContaining({ reason: 'broker-away' }))
    large.fail(new Error('the end'))
    const both = [pending.add(message('a')), pending.add(message('b'))]
    expect(() => pending.add(message('c'))).toThrow(expect.objectContaining({ reason: 'broker-away' }))
    for (const each of both) each.fail(new Error('the end'))
  })

  it('leave room for those of others, however many somebody has', () => {
    const pending = new PendingPublishes({ maxCount: 10, maxBytes: 1000, timeout: 10_000, ...late })
    const all = Array.from({ length: 5 }, () => pending.add(message('a'), { by: 'one' }))
    const tooFast = expect.objectContaining({ reason: 'publishing-too-fast' })
    expect(() => pending.add(message('a'), { by: 'one' })).toThrow(tooFast)
    all.push(pending.add(message('x'.repeat(800)), { by: 'two' }), pending.add(message('a')))
    expect(() => pending.add(message('a'), { by: 'two' })).toThrow(tooFast)
    for (const each of all) each.fail(new Error('the end'))
    pending.add(message('a'), { by: 'one' }).fail(new Error('the end'))
  })

  it('fail when their time is over, and are taken for nothing afterwards', async () => {
    const pending = new PendingPublishes({ maxCount: 2, maxBytes: 100, timeout: 5, ...late })
    await expect(pending.add(message('a')).event).rejects.toMatchObject({ reason: 'publish-timeout' })
    expect(pending.take(message('a'), true)).toBeUndefined()
  })

  it('are waited for beyond their time by those with patience, and keep nobody else from publishing', async () => {
    const pending = new PendingPublishes({ maxCount: 1, maxBytes: 100, timeout: 5, ...late })
    const patient = pending.add(message('a'), { extraTimeout: 60_000 })
    await expectLater(pending, message('b'))
    expect(pending.take(message('a'), true)).toBe(patient)
    patient.arrive(event)
    expect(await patient.event).toBe(event)
    pending.close(new Error('the end'))
  })

  it('that are late are taken only where no other may be meant', async () => {
    const pending = new PendingPublishes({ maxCount: 1, maxBytes: 100, timeout: 5, ...late })
    const lost = pending.add(message('a'), { extraTimeout: 60_000 })
    const next = await expectLater(pending, message('a'))
    expect(pending.take(message('a'), true)).toBe(next)
    expect(pending.take(message('a'), true)).toBe(lost)
    for (const each of [lost, next]) each.arrive(event)
  })

  it('are given up when patience ends, unless they are on their way to the journal', async () => {
    const pending = new PendingPublishes({ maxCount: 2, maxBytes: 100, timeout: 1, ...late })
    const [lost, back] = [
      pending.add(message('a'), { extraTimeout: 5 }),
      pending.add(message('b'), { extraTimeout: 1 }),
    ]
    expect(pending.take(message('b'), true)).toBe(back)
    await expect(lost.event).rejects.toMatchObject({ reason: 'publish-timeout' })
    back.arrive(event)
    expect(await back.event).toBe(event)
  })

  it('that are late are bounded: the oldest are given up', async () => {
    const pending = new PendingPublishes({ maxCount: 10, maxBytes: 100, timeout: 1, ...late })
    const back = pending.add(message('back'), { extraTimeout: 60_000 })
    pending.take(message('back'), true)
    const many = ['a', 'b', 'c', 'd'].map(payload => pending.add(message(payload), { extraTimeout: 60_000 }))
    const reason = { reason: 'publish-timeout' }
    await expect(many[0]?.event).rejects.toMatchObject(reason)
    await expect(many[1]?.event).rejects.toMatchObject(reason)
    expect(pending.take(message('a'), true)).toBeUndefined()
    expect(pending.take(message('d'), true)).toBe(many[3])
    back.arrive(event)
    expect(await back.event).toBe(event)
    pending.close(new Error('the end'))
  })
})

describe('a size that a broker seems to end connections for', () => {
  const refused = expect.objectContaining({ reason: 'body-too-large' })

  it('is none where as much has come through', () => {
    const sizes = new LearnedSizeLimit()
    sizes.passed(100)
    expect([sizes.lost(100), sizes.lost(100), sizes.lost(50)]).toEqual([undefined, undefined, undefined])
    sizes.require(1000)
  })

  it('is refused from the second time on, for ten minutes', () => {
    let now = 0
    const sizes = new LearnedSizeLimit(() => now)
    sizes.passed(100)
    expect(sizes.lost(300)).toMatchObject({ reason: 'publish-timeout' })
    sizes.require(300)
    expect(sizes.lost(200)).toMatchObject({ reason: 'body-too-large' })
    expect(() => sizes.require(200)).toThrow(refused)
    sizes.require(199)
    now += 600_000
    sizes.require(200)
    expect(sizes.lost(200)).toMatchObject({ reason: 'publish-timeout' })
  })
})

describe('somebody else with the session’s client id', () => {
  const rivals = () => {
    const errors: string[] = []
    const clock = { now: 0 }
    const log = { error: (text: unknown) => errors.push(String(text)) }
    return { errors, clock, rivals: new TakeoverDetector({ clientId: 'c', log, now: () => clock.now }) }
  }

  it('is told of at once where the broker says so, and again after a while', () => {
    const { errors, clock, rivals: subject } = rivals()
    for (let count = 0; count < 3; count++) subject.ended(new TakenOver(), 100)
    expect(errors).toHaveLength(1)
    clock.now += 300_000
    subject.ended(new TakenOver(), 60_000)
    expect(errors).toHaveLength(2)
  })

  it('is guessed where four connections in a row end soon, with the broker there all the time', () => {
    const { errors, rivals: subject } = rivals()
    const lost = new Error('lost')
    for (const lasted of [1, 1, 1, undefined, 1, 1, 1, 10_000, 1, 1, 1]) subject.ended(lost, lasted)
    expect(errors).toEqual([])
    subject.ended(lost, 1)
    expect(errors).toEqual([expect.stringContaining('push.clientId')])
  })
})
