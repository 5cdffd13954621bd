import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { BufferedBytes } from '../../../src/broker/embedded/buffered-bytes.js'

const MiB = 2 ** 20

describe('bytes of packets that are not complete', () => {
  it('are shared: one account has half, another one half of the rest, and small packets always fit', () => {
    const buffered = new BufferedBytes(64 * MiB)
    const packetsOf = (account: string): number => {
      let packets = 0
      while (buffered.hold(account, 0, MiB) !== undefined) packets++
      return packets
    }
    expect([packetsOf('a'), packetsOf('b')]).toEqual([32, 16])
    expect(buffered.hold('a', 0, 64 * 1024)).toBe(0)
    expect(buffered.incoming).toBe(48 * MiB)
  })

  it('are given back when the packet is complete, or another one begins', () => {
    const buffered = new BufferedBytes(64 * MiB)
    expect(buffered.hold('a', buffered.hold('a', 0, MiB) ?? 0, 2 * MiB)).toBe(2 * MiB)
    expect(buffered.hold('a', 2 * MiB, 0)).toBe(0)
    expect(buffered.incoming).toBe(0)
  })

  it('stay as they were where more do not fit', () => {
    const buffered = new BufferedBytes(8 * MiB)
    buffered.hold('a', 0, 2 * MiB)
    expect(buffered.hold('a', 2 * MiB, 5 * MiB)).toBeUndefined()
    expect(buffered.incoming).toBe(2 * MiB)
  })
})

describe('bytes that wait for clients', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('end the slowest connections of the account that has most, and nobody else’s', () => {
    const buffered = new BufferedBytes(100)
    const ended: string[] = []
    for (const [account, waitingBytes] of [
      ['a', 30],
      ['a', 20],
      ['a', 10],
      ['b', 5],
      ['c', 40],
    ] as const) {
      const end = { waitingBytes, deliveredBytes: 0 }
      buffered.add({ account, end, cutOff: () => ended.push(`${account} ${waitingBytes}`) })
    }
    vi.advanceTimersByTime(250)
    expect(ended).toEqual(['a 30', 'a 20'])
    expect(buffered.cutOffs).toBe(2)
  })

  it('are nobody’s concern below half of the bound', () => {
    const buffered = new BufferedBytes(100)
    const end = { waitingBytes: 50, deliveredBytes: 0 }
    buffered.add({ account: 'a', end, cutOff: () => expect.unreachable() })
    vi.advanceTimersByTime(1000)
  })
})
