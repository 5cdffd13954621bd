import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { HandlePosition } from '../../src/compat/rrr/handle-position.js'
import { MemoryState } from '../../src/storage/memory-state.js'

/** One handle at several gateways. */
function positionAt() {
  const state = new MemoryState()
  const bounds = { maxEntries: 10, maxBytes: 10_000, maxEntriesPerOwner: 10, maxBytesPerOwner: 10_000 }
  const handles = state.collection('handles', { ...bounds, maxAge: 60_000, whenFull: 'evict' })
  return (journal = { epoch: 'e', head: 100 }) => new HandlePosition({ handles, name: '1', journal })
}

describe('the position of a handle', () => {
  it('goes on at another gateway after what was delivered', async () => {
    const at = positionAt()
    const [a, b] = [at(), at()]
    expect(await a.begin('r1', 'o', 0)).toBe(0)
    expect(await a.claim('r1', 'o', 7)).toBe('claimed')
    await a.settle('r1', 'o', true)
    expect(await b.begin('r2', 'o', 0)).toBe(7)
    expect(await b.claim('r2', 'o', 7)).toBe('delivered')
    expect(await b.claim('r2', 'o', 8)).toBe('claimed')
    await b.settle('r2', 'o', false)
    expect(await a.begin('r3', 'o', 0)).toBe(7)
    await a.advance('r3', 'o', 50)
    expect(await b.begin('r4', 'o', 0)).toBe(50)
  })

  it('is that of the newest request, and no other one gets a message', async () => {
    const at = positionAt()
    const [a, b] = [at(), at()]
    await a.begin('r1', 'o', 0)
    await b.begin('r2', 'o', 0)
    expect(await a.claim('r1', 'o', 7)).toBe('replaced')
    await a.advance('r1', 'o', 50)
    await a.settle('r1', 'o', true)
    expect(await b.claim('r2', 'o', 7)).toBe('claimed')
  })

  it('waits for a message that is being written at another gateway', async () => {
    const at = positionAt()
    const [a, b] = [at(), at()]
    for (const [isWritten, position] of [
      [false, 0],
      [true, 7],
    ] as const) {
      await a.begin('r1', 'o', 0)
      await a.claim('r1', 'o', 7)
      let begun = false
      const beginning = b.begin('r2', 'o', 0).then(found => {
        begun = true
        return found
      })
      await new Promise(setImmediate)
      expect(begun).toBe(false)
      await a.settle('r1', 'o', isWritten)
      expect(await beginning).toBe(position)
    }
  })

  it('has a message undelivered that a gateway has not written within a second, whatever that says later', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    onTestFinished(() => void vi.useRealTimers())
    const at = positionAt()
    const [a, b] = [at(), at()]
    await a.begin('r1', 'o', 0)
    await a.claim('r1', 'o', 7)
    const beginning = b.begin('r2', 'o', 0)
    await vi.advanceTimersByTimeAsync(1100)
    expect(await beginning).toBe(0)
    await a.settle('r1', 'o', true)
    expect(await b.claim('r2', 'o', 7)).toBe('claimed')
  })

  it('is what a gateway knows where the state has lost it, and nothing where the journal was lost with its epoch', async () => {
    const at = positionAt()
    expect(await at().begin('r1', 'o', 20)).toBe(20)
    expect(await at({ epoch: 'e', head: 5 }).begin('r2', 'o', 0)).toBe(20)
    expect(await at({ epoch: 'f', head: 5 }).begin('r3', 'o', 0)).toBe(0)
    expect(await positionAt()().claim('r4', 'o', 7)).toBe('claimed')
  })
})
