import { describe, expect, it } from 'vitest'
import type { Event } from '../../src/journal/event.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { MemoryState } from '../../src/storage/memory-state.js'
import type { SharedState } from '../../src/storage/shared-state.js'
import { type IdempotencyBounds, IdempotencyKeys } from '../../src/transports/idempotency.js'
import { findPublished } from '../../src/transports/interrupted-publishes.js'
import { message, wide } from '../contracts/journal.js'
import { recordingLog } from '../server/rig.js'

const bounds: IdempotencyBounds = { maxAge: 60_000, maxKeys: 100, maxBytes: 1_000_000, holdTime: 15_000 }
const busy = expect.objectContaining({ reason: 'idempotency-busy' })
const mismatch = expect.objectContaining({ reason: 'idempotency-mismatch' })

/** Two gateways with one state. */
function two(some: Partial<IdempotencyBounds> = {}) {
  let now = 0
  const state = new MemoryState(() => now)
  const journal = { head: 7 }
  const keysOf = (given: SharedState = state) => new IdempotencyKeys(given, journal, { ...bounds, ...some })
  return {
    ...{ a: keysOf(), b: keysOf(), state, journal, keysOf },
    pass: (milliseconds: number) => {
      now += milliseconds
    },
  }
}

async function answer(keys: IdempotencyKeys, key: string, ids = 1, owner = key): Promise<void> {
  const { progress, end } = await keys.begin(owner, key, 'f')
  for (let id = 0; id < ids; id++) progress.ids.push(`id-${id}`)
  progress.done = true
  await end()
}

/** Whether the response to a key is known. */
async function knows(keys: IdempotencyKeys, key: string, owner = key): Promise<boolean> {
  const { progress, end } = await keys.begin(owner, key, 'f')
  await end()
  return progress.done
}

/** A message whose outcome is not known yet. */
function pending() {
  let settle = (): void => {}
  const settled = new Promise<void>(resolve => {
    settle = resolve
  })
  return { inProgress: { message: message('a'), settled }, settle: () => settle() }
}

describe('keys of requests', () => {
  it('are known at both gateways for a while after the last request with them', async () => {
    const { a, b, pass } = two()
    await answer(a, 'k')
    pass(50_000)
    expect(await knows(b, 'k')).toBe(true)
    pass(50_000)
    expect(await knows(a, 'k')).toBe(true)
    pass(60_001)
    expect(await knows(b, 'k')).toBe(false)
    expect([a.open, b.open]).toEqual([0, 0])
  })

  it('are those of their owner', async () => {
    const { a, b } = two()
    await answer(a, 'k', 1, 'one')
    expect(await knows(b, 'k', 'two')).toBe(false)
    await expect(b.begin('one', 'k', 'other')).rejects.toThrow(mismatch)
  })

  it('are refused while the other gateway answers a request with them', async () => {
    const { a, b } = two()
    const first = await a.begin('o', 'k', 'f')
    for (const keys of [a, b]) {
      await expect(keys.begin('o', 'k', 'f')).rejects.toThrow(busy)
      await expect(keys.begin('o', 'k', 'other')).rejects.toThrow(mismatch)
    }
    await first.end()
    await first.end()
    expect(await knows(b, 'k', 'o')).toBe(false)
    await answer(a, 'k', 1, 'o')
    expect(await knows(b, 'k', 'o')).toBe(true)
  })

  it('of several at once get one request', async () => {
    const { a, b } = two()
    const begun = await Promise.allSettled([a, b, a, b].map(keys => keys.begin('o', 'k', 'f')))
    expect(begun.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  })

  it('go on at the other gateway where a batch has failed, without a search', async () => {
    const { a, b } = two()
    const first = await a.begin('o', 'k', 'f')
    first.progress.ids.push('1', null)
    await first.end()
    const { progress } = await b.begin('o', 'k', 'f')
    expect(progress).toMatchObject({ ids: ['1', null], done: false, uncertainAfter: undefined })
  })

  it('are held while the outcome of a message is unknown, and free then', async () => {
    const { a, b } = two()
    const { inProgress, settle } = pending()
    const first = await a.begin('o', 'k', 'f')
    first.progress.inProgress = inProgress
    await first.end()
    await expect(b.begin('o', 'k', 'f')).rejects.toThrow(busy)
    const again = await a.begin('o', 'k', 'f')
    expect(again.progress).toBe(first.progress)
    await again.end()
    first.progress.inProgress = undefined
    first.progress.ids.push('1')
    settle()
    await inProgress.settled
    // The next request waits until the progress is stored.
    expect((await a.begin('o', 'k', 'f')).progress.ids).toEqual(['1'])
    expect(a.open).toBe(1)
  })

  it('of a gateway that has ended are free after the hold time, and the position of its search is known', async () => {
    const { a, b, journal, pass, keysOf } = two()
    await a.begin('o', 'k', 'f')
    journal.head = 20
    pass(14_999)
    await expect(b.begin('o', 'k', 'f')).rejects.toThrow(busy)
    pass(1)
    const taken = await b.begin('o', 'k', 'f')
    expect(taken.progress.uncertainAfter).toBe(7)
    // It has searched nothing.
    await taken.end()
    const third = await keysOf().begin('o', 'k', 'f')
    expect(third.progress.uncertainAfter).toBe(7)
  })

  it('that were taken meanwhile end the request of a gateway that was stopped', async () => {
    const { a, b, pass } = two({ holdTime: 0 })
    const stopped = await a.begin('o', 'k', 'f')
    pass(1)
    const taken = await b.begin('o', 'k', 'f')
    await expect(stopped.renew()).rejects.toThrow(busy)
    stopped.progress.ids.push('lost')
    await stopped.end()
    taken.progress.ids.push('1')
    await taken.end()
    expect((await a.begin('o', 'k', 'f')).progress.ids).toEqual(['1'])
  })

  it('are unavailable while the state is away, and a request that has begun ends nevertheless', async () => {
    const { state, keysOf } = two()
    let isAway = false
    const fail = async (): Promise<never> => {
      throw new Error('away')
    }
    const keys = keysOf({
      exchange: () => state.exchange(),
      collection: (name, some) => {
        const collection = state.collection(name, some)
        return {
          get: key => (isAway ? fail() : collection.get(key)),
          set: (...args) => (isAway ? fail() : collection.set(...args)),
        }
      },
    })
    const request = await keys.begin('o', 'k', 'f')
    isAway = true
    await expect(keys.begin('o', 'other', 'f')).rejects.toMatchObject({ reason: 'journal-unavailable' })
    await request.end()
    expect(keys.open).toBe(0)
  })

  it('of one owner are half of them at most, and take nobody else’s place', async () => {
    const { a } = two({ maxKeys: 10 })
    for (const key of ['a', 'b', 'c', 'd']) await answer(a, key)
    for (let key = 0; key < 100; key++) await answer(a, `many-${key}`, 1, 'one')
    expect(await Promise.all(['a', 'b', 'c', 'd'].map(key => knows(a, key)))).toEqual([true, true, true, true])
    expect(await Promise.all([95, 99].map(key => knows(a, `many-${key}`, 'one')))).toEqual([true, true])
    expect(await knows(a, 'many-94', 'one')).toBe(false)
  })
})

describe('messages of a gateway that has ended', () => {
  const search = async (published: readonly string[], wanted: readonly string[], after = 0) => {
    const journal = new MemoryJournal({ bounds: wide, log: recordingLog().log })
    const messageOf = (name: string) => message(name.split('=')[0] ?? '', name.split('=')[1] ?? '')
    const events: Event[] = []
    for (const each of published) events.push(await journal.append(messageOf(each)))
    const found = await findPublished(journal, wanted.map(messageOf), after, topic => topic !== 'x')
    await journal.close()
    return found.map(event => event && events.indexOf(event))
  }

  it('are the first with their topic and payload, in order', async () => {
    expect(await search(['a=1', 'a=0', 'b=2', 'a=1', 'a=2'], ['a=1', 'a=2'])).toEqual([0, 4])
    expect(await search(['a=1', 'a=0', 'a=1', 'a=1'], ['a=1', 'a=1', 'a=1', 'a=1'])).toEqual([0, 2, 3])
    expect(await search(['a=1', 'a=1'], ['a=1'], 1)).toEqual([1])
    expect(await search(['a=2'], ['a=1', 'a=2'])).toEqual([])
  })

  it('that push does not cover are those before one that is found', async () => {
    expect(await search(['a=1', 'a=2'], ['x=1', 'a=1', 'x=2', 'x=3', 'a=2', 'x=4', 'a=5'])).toEqual([
      ...[null, 0, null, null, 1],
    ])
    expect(await search([], ['x=1'])).toEqual([])
  })

  it('are found among many others', async () => {
    const others = Array.from({ length: 250 }, (_, index) => `a=${index}`)
    expect(await search([...others, 'a=1'], ['a=249', 'a=1'])).toEqual([249, 250])
  })
})
