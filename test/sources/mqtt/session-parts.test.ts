import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Event } from '../../../src/journal/event.js'
import { backoff } from '../../../src/mqtt/backoff.js'
import { TakenOver } from '../../../src/mqtt/broker-responses.js'
import type { Message } from '../../../src/mqtt/message.js'
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
  const expectLater = async (echoes: PendingPublishes, sent: Message): Promise<PendingPublish> => {
    for (;;) {
      try {
        return echoes.expect(sent)
      } catch {
        await new Promise(setImmediate)
      }
    }
  }

  it('are taken in order, by payload and RETAIN', () => {
    const echoes = new PendingPublishes({ maxCount: 10, maxBytes: 1000, timeout: 10_000, ...late })
    const [first, second, retained] = [message('a'), message('a'), message('a', true)].map(m => echoes.expect(m))
    expect(echoes.take(message('b'), true)).toBeUndefined()
    expect(echoes.take(message('a', true), true)).toBe(retained)
    expect(echoes.take(message('a'), true)).toBe(first)
    expect(echoes.take(message('a', true), true)).toBeUndefined()
    expect(echoes.take(message('a', true), false)).toBe(second)
    for (const echo of [first, second, retained]) echo?.fail(new Error('the end'))
  })

  it('are bounded in number and bytes', () => {
    const echoes = new PendingPublishes({ maxCount: 2, maxBytes: 100, timeout: 10_000, ...late })
    const large = echoes.expect(message('x'.repeat(500)))
    expect(() => echoes.expect(message('a'))).toThrow(expect.objectContaining({ reason: 'broker-away' }))
    large.fail(new Error('the end'))
    const both = [echoes.expect(message('a')), echoes.expect(message('b'))]
    expect(() => echoes.expect(message('c'))).toThrow(expect.objectContaining({ reason: 'broker-away' }))
    for (const echo of both) echo.fail(new Error('the end'))
  })

  it('leave room for those of others, however many somebody has', () => {
    const echoes = new PendingPublishes({ maxCount: 10, maxBytes: 1000, timeout: 10_000, ...late })
    const all = Array.from({ length: 5 }, () => echoes.expect(message('a'), { by: 'one' }))
    const tooFast = expect.objectContaining({ reason: 'publishing-too-fast' })
    expect(() => echoes.expect(message('a'), { by: 'one' })).toThrow(tooFast)
    all.push(echoes.expect(message('x'.repeat(800)), { by: 'two' }), echoes.expect(message('a')))
    expect(() => echoes.expect(message('a'), { by: 'two' })).toThrow(tooFast)
    for (const echo of all) echo.fail(new Error('the end'))
    echoes.expect(message('a'), { by: 'one' }).fail(new Error('the end'))
  })

  it('fail when their time is over, and are taken for nothing afterwards', async () => {
    const echoes = new PendingPublishes({ maxCount: 2, maxBytes: 100, timeout: 5, ...late })
    await expect(echoes.expect(message('a')).event).rejects.toMatchObject({ reason: 'publish-timeout' })
    expect(echoes.take(message('a'), true)).toBeUndefined()
  })

  it('are waited for beyond their time by those with patience, and keep nobody else from publishing', async () => {
    const echoes = new PendingPublishes({ maxCount: 1, maxBytes: 100, timeout: 5, ...late })
    const patient = echoes.expect(message('a'), { patience: 60_000 })
    await expectLater(echoes, message('b'))
    expect(echoes.take(message('a'), true)).toBe(patient)
    patient.arrive(event)
    expect(await patient.event).toBe(event)
    echoes.close(new Error('the end'))
  })

  it('that are late are taken only where no other may be meant', async () => {
    const echoes = new PendingPublishes({ maxCount: 1, maxBytes: 100, timeout: 5, ...late })
    const lost = echoes.expect(message('a'), { patience: 60_000 })
    const next = await expectLater(echoes, message('a'))
    expect(echoes.take(message('a'), true)).toBe(next)
    expect(echoes.take(message('a'), true)).toBe(lost)
    for (const echo of [lost, next]) echo.arrive(event)
  })

  it('are given up when patience ends, unless they are on their way to the journal', async () => {
    const echoes = new PendingPublishes({ maxCount: 2, maxBytes: 100, timeout: 1, ...late })
    const [lost, back] = [echoes.expect(message('a'), { patience: 5 }), echoes.expect(message('b'), { patience: 1 })]
    expect(echoes.take(message('b'), true)).toBe(back)
    await expect(lost.event).rejects.toMatchObject({ reason: 'publish-timeout' })
    back.arrive(event)
    expect(await back.event).toBe(event)
  })

  it('that are late are bounded: the oldest are given up', async () => {
    const echoes = new PendingPublishes({ maxCount: 10, maxBytes: 100, timeout: 1, ...late })
    const back = echoes.expect(message('back'), { patience: 60_000 })
    echoes.take(message('back'), true)
    const many = ['a', 'b', 'c', 'd'].map(payload => echoes.expect(message(payload), { patience: 60_000 }))
    const reason = { reason: 'publish-timeout' }
    await expect(many[0]?.event).rejects.toMatchObject(reason)
    await expect(many[1]?.event).rejects.toMatchObject(reason)
    expect(echoes.take(message('a'), true)).toBeUndefined()
    expect(echoes.take(message('d'), true)).toBe(many[3])
    back.arrive(event)
    expect(await back.event).toBe(event)
    echoes.close(new Error('the end'))
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
