import fc from 'fast-check'
import { afterEach, beforeEach, expect, it } from 'vitest'
import {
  type SharedState,
  type StateBounds,
  StateFullError,
  sizeOf,
  updateState,
} from '../../src/storage/shared-state.js'

export interface StatePlace {
  /** The state, as one gateway has it; all calls give the same state where gateways share it. */
  open(): SharedState
  /** Lets time pass, by the clock of the state. */
  pass(milliseconds: number): Promise<void>
  dispose(): Promise<void>
}

const bounds: StateBounds = {
  maxAge: 60_000,
  maxEntries: 100,
  maxBytes: 1_000_000,
  maxEntriesPerOwner: 50,
  maxBytesPerOwner: 500_000,
  whenFull: 'evict',
}

/** The contract of `SharedState`. */
export function describeState(makePlace: () => Promise<StatePlace>): void {
  let place: StatePlace
  let count = 0
  beforeEach(async () => {
    place = await makePlace()
  })
  afterEach(() => place.dispose())

  const collectionOf = (some: Partial<StateBounds> = {}) => {
    const collection = place.open().collection(`c${count++}`, { ...bounds, ...some })
    return {
      ...collection,
      get: (key: string) => collection.get(key),
      set: (key: string, version: string, value: string, owner = 'o') => collection.set(key, version, { value, owner }),
      delete: (key: string, version: string) => collection.set(key, version, undefined),
      keys: async (keys: readonly string[]) => {
        const found = await Promise.all(keys.map(async key => ((await collection.get(key)).version === '' ? '' : key)))
        return found.filter(key => key !== '')
      },
      update: (key: string, add: string) =>
        updateState(collection, key, ({ value = '' }) => ({
          change: { value: value + add, owner: 'o' },
          result: value,
        })),
    }
  }

  it('stores any text under any key, and deletes it', async () => {
    const values = collectionOf()
    expect(await values.get('none')).toEqual({ value: undefined, version: '', age: 0 })
    const texts = ['', 'ünï\u{1f600}', 'a\nb\0c', 'x'.repeat(100_000)]
    for (const text of texts) {
      const key = `k\0${text.slice(0, 300)}`
      const version = await values.set(key, '', text, 'an öwner')
      expect(await values.get(key)).toMatchObject({ value: text, version })
      expect(await values.delete(key, version ?? '')).toBe('')
      expect((await values.get(key)).version).toBe('')
    }
  })

  it('changes only the version that the caller knows', async () => {
    const values = collectionOf()
    const first = await values.set('a', '', '1')
    expect(await values.set('a', '', 'other')).toBeUndefined()
    const second = (await values.set('a', first ?? '', '2')) ?? ''
    expect(second).not.toBe(first)
    expect(await values.set('a', first ?? '', 'other')).toBeUndefined()
    expect(await values.delete('a', first ?? '')).toBeUndefined()
    expect((await values.get('a')).value).toBe('2')
    expect(await values.delete('a', second)).toBe('')
    expect(await values.set('a', second, 'other')).toBeUndefined()
    expect(await values.delete('a', second)).toBeUndefined()
    const third = await values.set('a', '', '3')
    expect([first, second]).not.toContain(third)
  })

  it('loses no change of many at once', async () => {
    const values = collectionOf()
    const before = await Promise.all(Array.from({ length: 20 }, () => values.update('a', 'x')))
    expect((await values.get('a')).value).toBe('x'.repeat(20))
    expect(before.map(({ result }) => result.length).sort((a, b) => a - b)).toEqual(before.map((_, index) => index))
  })

  it('deletes an entry without a change for a while', async () => {
    const values = collectionOf({ maxAge: 150 })
    const version = await values.set('a', '', '1')
    await place.pass(100)
    expect((await values.get('a')).age).toBeGreaterThanOrEqual(99)
    await values.set('a', version ?? '', '2')
    await place.pass(100)
    expect((await values.get('a')).value).toBe('2')
    await place.pass(60)
    expect((await values.get('a')).version).toBe('')
    expect(await values.set('a', '', '3')).toBeTruthy()
  })

  it('evicts the oldest entries of an owner beyond its bounds', async () => {
    const values = collectionOf({ maxEntriesPerOwner: 3 })
    await values.set('other', '', '', 'other')
    let version = (await values.set('a', '', '')) ?? ''
    for (const key of ['b', 'c']) await values.set(key, '', '')
    version = (await values.set('a', version, 'again')) ?? ''
    expect(await values.keys(['other', 'a', 'b', 'c'])).toEqual(['other', 'a', 'b', 'c'])
    await values.set('d', '', '')
    expect(await values.keys(['other', 'a', 'b', 'c', 'd'])).toEqual(['other', 'a', 'c', 'd'])
    const size = sizeOf('a', { value: 'x'.repeat(1000), owner: 'o' })
    const large = collectionOf({ maxBytesPerOwner: 3 * size })
    for (const key of ['a', 'b', 'c', 'd']) await large.set(key, '', 'x'.repeat(1000))
    expect(await large.keys(['a', 'b', 'c', 'd'])).toEqual(['b', 'c', 'd'])
    await large.set('e', '', 'x'.repeat(2500))
    expect(await large.keys(['a', 'b', 'c', 'd', 'e'])).toEqual(['e'])
    await expect(large.set('f', '', 'x'.repeat(4000))).rejects.toThrow(StateFullError)
    expect(await large.keys(['e', 'f'])).toEqual(['e'])
  })

  it('evicts the oldest entry of the owner with the most', async () => {
    const values = collectionOf({ maxEntries: 5 })
    await values.set('1', '', '', 'few')
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) await values.set(key, '', '', 'many')
    await values.set('2', '', '', 'few')
    expect(await values.keys(['1', '2', 'a', 'b', 'c', 'd', 'e', 'f'])).toEqual(['1', '2', 'd', 'e', 'f'])
    const large = collectionOf({ maxBytes: 5000 })
    await large.set('1', '', 'x'.repeat(2000), 'one')
    for (const key of ['a', 'b', 'c', 'd', 'e']) await large.set(key, '', 'x'.repeat(100), 'many')
    await large.set('2', '', 'x'.repeat(2000), 'two')
    expect(await large.keys(['1', '2', 'a', 'b', 'c', 'd', 'e'])).toEqual(['2', 'a', 'b', 'c', 'd', 'e'])
  })

  it('evicts another entry than the new one where each owner has one', async () => {
    const values = collectionOf({ maxEntries: 2 })
    for (const key of ['z', 'a', 'm', 'zz']) {
      await values.set(key, '', '', key)
      expect(await values.keys([key])).toEqual([key])
    }
    expect(await values.keys(['z', 'a', 'm', 'zz'])).toHaveLength(2)
  })

  it('refuses a new entry where that is the rule, but no change of a known one', async () => {
    const values = collectionOf({ maxEntries: 2, whenFull: 'refuse', maxEntriesPerOwner: 2 })
    const version = (await values.set('a', '', '', 'one')) ?? ''
    await values.set('b', '', '', 'two')
    await expect(values.set('c', '', '', 'three')).rejects.toThrow(StateFullError)
    const next = await values.set('a', version, 'changed', 'one')
    expect(next).toBeTruthy()
    await values.delete('a', next ?? '')
    expect(await values.set('c', '', '', 'three')).toBeTruthy()
  })

  it('keeps within its bounds, whatever happens', async () => {
    const step = fc.record({
      kind: fc.constantFrom('set' as const, 'set' as const, 'delete' as const, 'stale' as const),
      key: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
      owner: fc.constantFrom('x', 'y', 'z'),
      size: fc.nat(900),
    })
    const some = { maxEntries: 4, maxBytes: 3000, maxEntriesPerOwner: 3, maxBytesPerOwner: 2000 }
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async steps => {
        const values = collectionOf(some)
        for (const { kind, key, owner, size } of steps) {
          const { version } = await values.get(key)
          if (kind === 'stale') expect(await values.set(key, `${version}x`, '')).toBeUndefined()
          else if (kind === 'delete') await values.delete(key, version)
          else {
            const next = await values.set(key, version, `${owner}${'x'.repeat(size)}`, owner)
            expect(await values.get(key)).toMatchObject({ version: next })
          }
          const all = await Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map(each => values.get(each)))
          const found = all.flatMap(({ value }) => value ?? [])
          const bytesOf = (list: string[]) => list.reduce((sum, value) => sum + sizeOf('a', { value, owner: 'x' }), 0)
          expect(found.length).toBeLessThanOrEqual(some.maxEntries)
          expect(bytesOf(found)).toBeLessThanOrEqual(some.maxBytes)
          for (const each of ['x', 'y', 'z']) {
            const own = found.filter(value => value.startsWith(each))
            expect(own.length).toBeLessThanOrEqual(some.maxEntriesPerOwner)
            expect(bytesOf(own)).toBeLessThanOrEqual(some.maxBytesPerOwner)
          }
        }
      }),
      { numRuns: 40 },
    )
  })

  it('gives nobody its own usage', async () => {
    const state = place.open()
    expect(await state.exchange([{ limit: 'l', key: 'k', amount: 1 }])).toEqual([])
    expect(await state.exchange([])).toEqual([])
  })
}
