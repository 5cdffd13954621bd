import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Congestion } from '../../../src/broker/embedded/congestion.js'

const mark = 1000
const max = 10_000

describe('a subscriber for which more than the mark waits', () => {
  const newEnd = () => ({ waitingBytes: 1500, deliveredBytes: 0, unwrittenBytes: 500, destroyed: false })
  const [reader, publisher, neighbour] = [{ account: 'a' }, { account: 'b' }, { account: 'a' }]
  let end = newEnd()
  let congestion: Congestion<{ account: string }>
  const mayJoin = (): boolean => congestion.mayJoin(reader, end, end.waitingBytes)
  /** Lets time pass in which `bytes` are taken, and come again, ten times a second. */
  const pass = (seconds: number, bytes = 0): void => {
    for (let tenth = 0; tenth < seconds * 10; tenth++) {
      end.deliveredBytes += bytes / 10
      vi.advanceTimersByTime(100)
    }
  }

  beforeEach(() => {
    vi.useFakeTimers()
    end = newEnd()
    congestion = new Congestion({ mark, max, accountOf: ({ account }) => account, now: () => Date.now() })
  })
  afterEach(() => void vi.useRealTimers())

  it('is waited for, and gets what was on its way, as long as it takes bytes', () => {
    expect(mayJoin()).toBe(true)
    pass(8, 300)
    expect([mayJoin(), congestion.isWaitedFor(reader, publisher), congestion.isStalled(reader)]).toEqual([
      true,
      true,
      false,
    ])
  })

  it('is waited for by nobody when it has taken nothing for one second, and slow after five', () => {
    mayJoin()
    pass(0.9)
    expect(congestion.isWaitedFor(reader, publisher)).toBe(true)
    pass(0.2)
    expect([congestion.isWaitedFor(reader, publisher), congestion.isStalled(reader), mayJoin()]).toEqual([
      false,
      true,
      true,
    ])
    pass(4)
    expect(mayJoin()).toBe(false)
  })

  it('is slow when it takes longer than ten seconds for what waits, though it takes some bytes each second', () => {
    mayJoin()
    pass(9.9, 100)
    expect(mayJoin()).toBe(true)
    pass(0.2, 100)
    expect([mayJoin(), congestion.isWaitedFor(reader, publisher)]).toEqual([false, false])
  })

  it('gets no more than the bound in bytes, and 16,384 messages that are not joined', () => {
    end.waitingBytes = max
    expect(mayJoin()).toBe(false)
    end.waitingBytes = 2000
    for (let count = 0; count < 16_384; count++) expect(mayJoin()).toBe(true)
    expect(mayJoin()).toBe(false)
    end.unwrittenBytes = 0
    expect(mayJoin()).toBe(true)
  })

  it('holds publishers of other accounts up for ten seconds, and then for a tenth of the time', () => {
    mayJoin()
    const held = (seconds: number): number => {
      let looks = 0
      for (let look = 0; look < seconds * 20; look++) {
        if (congestion.isWaitedFor(reader, publisher)) looks++
        end.deliveredBytes += 50
        vi.advanceTimersByTime(50)
      }
      return looks / 20
    }
    expect(held(100)).toBeCloseTo(10 + 10, -1)
    expect(held(100)).toBeCloseTo(10, -1)
    expect(congestion.isWaitedFor(reader, neighbour)).toBe(true)
  })

  it('is forgotten when it has caught up, or is gone', () => {
    mayJoin()
    end.waitingBytes = 10
    vi.advanceTimersByTime(50)
    expect(congestion.size).toBe(0)
    expect(vi.getTimerCount()).toBe(0)
    end = { ...newEnd(), destroyed: true }
    mayJoin()
    vi.advanceTimersByTime(50)
    expect(congestion.size).toBe(0)
  })
})
