import { describe, expect, it } from 'vitest'
import { StateKeeper } from '../../src/workers/state-keeper.js'
import { WorkerState } from '../../src/workers/worker-state.js'
import { describeState } from '../contracts/shared-state.js'
import { channelPair } from './channel-pair.js'

function makePlace() {
  let now = 0
  const keeper = new StateKeeper(() => now)
  return {
    open: () => {
      const { primary, worker } = channelPair()
      keeper.add(primary)
      return new WorkerState(worker)
    },
    pass: async (milliseconds: number) => {
      now += milliseconds
    },
    dispose: async () => {},
  }
}

describe('the state of workers', () => {
  describeState(async () => makePlace())

  it('is one for all of them', async () => {
    const place = makePlace()
    const bounds = { maxAge: 1000, maxEntries: 9, maxBytes: 9999, maxEntriesPerOwner: 9, maxBytesPerOwner: 9999 }
    const [a, b] = [1, 2].map(() => place.open().collection('c', { ...bounds, whenFull: 'evict' }))
    await a?.set('k', '', { value: 'v', owner: 'o' })
    expect(await b?.get('k')).toMatchObject({ value: 'v' })
  })

  it('has the usage that the others have reported within ten seconds', async () => {
    const place = makePlace()
    const [a, b] = [place.open(), place.open()]
    const usage = (amount: number) => [{ limit: 'l', key: 'k', amount }]
    await a.exchange(usage(1))
    await place.pass(6000)
    await a.exchange(usage(2))
    await place.pass(6000)
    expect(await b.exchange(usage(3))).toEqual([{ age: 6000, usage: usage(2) }])
    expect(await b.exchange([])).toEqual([])
    expect(await a.exchange([])).toEqual([{ age: 0, usage: usage(3) }])
    // Too many reports: the oldest are lost.
    const many = Array.from({ length: 60_000 }, (_, index) => ({ limit: 'l', key: `${index}`, amount: 1 }))
    await a.exchange(many)
    await a.exchange(many)
    expect(await b.exchange([])).toHaveLength(1)
  })
})
