import fc from 'fast-check'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { Store, StoreChange } from '../../src/storage/store.js'

/** A place where a store can be. */
export interface StorePlace {
  open(): Promise<Store>
  /** Ends a store as the sudden end of the process does. */
  crash(store: Store): Promise<void>
  dispose(): Promise<void>
}

const everything = { gte: '', lt: '\u{10ffff}' }

/** What every `Store` does. `durable`: whether it outlives the process. */
export function describeStore(makePlace: () => Promise<StorePlace>, { durable }: { durable: boolean }): void {
  let place: StorePlace
  let store: Store
  const put = (key: string, value = key.toUpperCase()): StoreChange => ({ type: 'put', key, value })
  const del = (key: string): StoreChange => ({ type: 'del', key })

  beforeEach(async () => {
    place = await makePlace()
    store = await place.open()
  })
  afterEach(async () => {
    await store.close()
    await place.dispose()
  })

  it('keeps texts by key, and gives them in the order of their keys', async () => {
    await store.batch(['b', 'a', 'd', 'c'].map(key => put(key)))
    expect([await store.get('a'), await store.get('x')]).toEqual(['A', undefined])
    expect(await store.range({ gte: 'b', lt: 'd' }, 10)).toEqual([
      ['b', 'B'],
      ['c', 'C'],
    ])
    expect(await store.range({ gte: 'a', lt: 'z' }, 1)).toEqual([['a', 'A']])
    expect(await store.range({ gte: 'e', lt: 'z' }, 10)).toEqual([])
  })

  it('keeps any text under any key, an empty one too', async () => {
    const texts = ['', 'ünï/\u{1f600}', 'a\nb', 'x'.repeat(100_000)]
    await store.batch(texts.map((text, index) => put(`k${index}/${text.slice(0, 300)}`, text)))
    for (const [index, text] of texts.entries()) expect(await store.get(`k${index}/${text.slice(0, 300)}`)).toBe(text)
  })

  it('makes the changes of a batch in their order', async () => {
    await store.batch([put('a', '1'), put('a', '2'), put('b'), del('b'), del('none')])
    expect(await store.range(everything, 10)).toEqual([['a', '2']])
  })

  it('forgets a range', async () => {
    await store.batch(['a/1', 'a/2', 'b/1', 'c'].map(key => put(key)))
    await store.clear({ gte: 'a/', lt: 'b/1' })
    expect((await store.range(everything, 10)).map(([key]) => key)).toEqual(['b/1', 'c'])
  })

  it('lets others have their turn, however much is asked of it', async () => {
    await store.batch([put('a')])
    let turns = 0
    let next = setImmediate(function count() {
      turns++
      next = setImmediate(count)
    })
    for (let index = 0; index < 500; index++) {
      await store.get('a')
      await store.range(everything, 1)
      await store.batch([put('a')])
    }
    clearImmediate(next)
    expect(turns).toBeGreaterThanOrEqual(10)
  })

  it('refuses everything when it is closed', async () => {
    await store.close()
    await store.close()
    await expect(store.get('a')).rejects.toThrow('closed')
    await expect(store.batch([put('a')])).rejects.toThrow('closed')
    await expect(store.range(everything, 1)).rejects.toThrow('closed')
    await expect(store.clear(everything)).rejects.toThrow('closed')
  })

  it.runIf(durable)('has everything after a crash that it took', async () => {
    for (let index = 0; index < 200; index++) await store.batch([put(`k${index}`), put('last', String(index))])
    await place.crash(store)
    store = await place.open()
    expect(await store.range(everything, 1000)).toHaveLength(201)
    expect(await store.get('last')).toBe('199')
  })

  it('does as a model does', async () => {
    const key = fc.string({ unit: fc.constantFrom('a', 'b', '/', '0', 'ü'), minLength: 1, maxLength: 3 })
    const range = fc.record({ gte: key, lt: key })
    const command = fc.oneof(
      fc.record({
        kind: fc.constant('batch' as const),
        changes: fc.array(
          fc.oneof(
            fc.tuple(key, fc.string()).map(([name, text]) => put(name, text)),
            key.map(del),
          ),
        ),
      }),
      fc.record({ kind: fc.constant('range' as const), range, limit: fc.nat(5) }),
      fc.record({ kind: fc.constant('clear' as const), range }),
      fc.record({ kind: fc.constant('get' as const), key }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 20 }), async commands => {
        await store.clear(everything)
        const model = new Map<string, string>()
        const within = ({ gte, lt }: { gte: string; lt: string }) =>
          [...model].filter(([name]) => name >= gte && name < lt).sort(([a], [b]) => (a < b ? -1 : 1))
        for (const each of commands) {
          if (each.kind === 'batch') {
            await store.batch(each.changes)
            for (const change of each.changes) {
              if (change.type === 'put') model.set(change.key, change.value)
              else model.delete(change.key)
            }
          } else if (each.kind === 'range') {
            expect(await store.range(each.range, each.limit)).toEqual(within(each.range).slice(0, each.limit))
          } else if (each.kind === 'clear') {
            await store.clear(each.range)
            for (const [name] of within(each.range)) model.delete(name)
          } else expect(await store.get(each.key)).toBe(model.get(each.key))
        }
        expect(await store.range(everything, 1000)).toEqual(within(everything))
      }),
      { numRuns: 60 },
    )
  })
}
