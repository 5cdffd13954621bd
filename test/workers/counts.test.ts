import { describe, expect, it } from 'vitest'
import { ConnectionLimits } from '../../src/access/limits.js'
import { CountsKeeper } from '../../src/workers/counts-keeper.js'
import { CountsView } from '../../src/workers/counts-view.js'
import { eventually, settled } from '../helpers/wait.js'
import { channelPair } from './channel-pair.js'

const address = '198.51.100.1'

function makeWorkers(count: number) {
  const keeper = new CountsKeeper()
  const add = () => {
    const { primary, worker } = channelPair()
    const view = new CountsView(worker, count)
    return { remove: keeper.add(primary), view, others: view.others('connections') }
  }
  return { keeper, add, workers: Array.from({ length: count }, add) }
}

/** Connections that `limits` admits at once. */
function admitAll(limits: ConnectionLimits): (() => void)[] {
  const admitted: (() => void)[] = []
  for (;;) {
    try {
      admitted.push(limits.hold(address))
    } catch {
      return admitted
    }
  }
}

describe('counts of several workers', () => {
  it('are known to each of them, also to one that starts later, and forgotten with the connections', async () => {
    const { keeper, add, workers } = makeWorkers(2)
    const [a, b] = [workers[0], workers[1]]
    a?.others.set('x', 3)
    a?.others.set('y', 1)
    b?.others.set('x', 2)
    await eventually(() => b?.others.of('x') === 3 && a?.others.of('x') === 2)
    expect([a?.others.total, b?.others.total]).toEqual([2, 4])
    const late = add()
    await eventually(() => late.others.total === 6)
    expect(keeper.size).toBe(2)
    a?.others.set('y', 0)
    await eventually(() => late.others.of('y') === 0 && keeper.size === 1)
    a?.remove()
    await eventually(() => late.others.of('x') === 2 && b?.others.of('x') === 0)
    b?.remove()
    await eventually(() => late.others.total === 0)
    expect(keeper.size).toBe(0)
  })

  it('limit the connections of an address, and exceed the limit by nine for each worker if all admit at once', async () => {
    const [max, count] = [1000, 4]
    const { workers } = makeWorkers(count)
    const limits = workers.map(
      ({ others }) => new ConnectionLimits({ connections: 10_000, connectionsPerAddress: max, others }),
    )
    const first = limits.flatMap(admitAll)
    expect(first.length).toBeGreaterThanOrEqual(max)
    expect(first.length).toBeLessThanOrEqual(max + 9 * count)
    await settled(() => workers[0]?.others.total ?? 0)
    expect(limits.flatMap(admitAll)).toEqual([])
    // One worker may have all of them.
    for (const release of first) release()
    const all: unknown[] = []
    await eventually(() => {
      all.push(...admitAll(limits[0] as ConnectionLimits))
      return all.length === max
    })
  })
})
