import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Event } from '../../src/journal/event.js'
import { GroupCommit } from '../../src/journal/group-commit.js'
import type { Message } from '../../src/mqtt/message.js'
import { message, wide } from '../contracts/journal.js'
import { settled } from '../helpers/wait.js'

describe('a group commit', () => {
  let batches: string[][]
  let commit: GroupCommit
  const write = async (messages: readonly Message[]): Promise<Event[]> => {
    batches.push(messages.map(({ topic }) => topic))
    return messages.map(({ topic, payload, qos }, index) => ({
      id: '',
      sequence: index,
      time: 0,
      topic,
      payload,
      qos,
      retained: false,
    }))
  }
  const atLeisure = (topic: string) => commit.append(message(topic), 'at leisure')
  const nothingMore = () => settled(() => batches.length)

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    batches = []
    commit = new GroupCommit({ bounds: wide, write })
  })
  afterEach(async () => {
    vi.useRealTimers()
    await commit.close()
  })

  it('collects what nobody waits for over turns of the event loop, until its time is over', async () => {
    const written = [atLeisure('a')]
    await nothingMore()
    written.push(atLeisure('b'))
    await nothingMore()
    expect(batches).toEqual([])
    vi.advanceTimersByTime(10)
    await Promise.all(written)
    expect(batches).toEqual([['a', 'b']])
    const later = atLeisure('c')
    await nothingMore()
    expect(batches.length).toBe(1)
    vi.advanceTimersByTime(10)
    await later
    expect(batches[1]).toEqual(['c'])
  })

  it('writes it before what somebody waits for, in the same batch', async () => {
    const first = atLeisure('a')
    await nothingMore()
    await commit.append(message('b'))
    await first
    expect(batches).toEqual([['a', 'b']])
  })

  it('does not let a topic wait that somebody wants who watches', async () => {
    commit.watch(
      () => {},
      topic => topic === 'b',
    )
    const other = atLeisure('a')
    await nothingMore()
    expect(batches).toEqual([])
    await Promise.all([other, atLeisure('b')])
    expect(batches).toEqual([['a', 'b']])
  })

  it('takes all topics for wanted by somebody who watches and does not say', async () => {
    commit.watch(() => {})
    await atLeisure('a')
    expect(batches).toEqual([['a']])
  })

  it('goes on collecting behind a batch that is under way', async () => {
    const soon = commit.append(message('a'))
    await new Promise(setImmediate)
    const later = atLeisure('b')
    await soon
    await nothingMore()
    expect(batches).toEqual([['a']])
    vi.advanceTimersByTime(10)
    await later
  })

  it.each([
    ['messages', 256, ''],
    ['bytes', 4, 'x'.repeat(2 ** 18)],
  ])('does not collect more than so many %s', async (_, count, payload) => {
    await Promise.all(Array.from({ length: count }, () => commit.append(message('a', payload), 'at leisure')))
    expect(batches.flat().length).toBe(count)
  })

  it('has less wait where no more may wait', async () => {
    commit = new GroupCommit({ bounds: { maxWaiting: 2, maxWaitingBytes: 10 }, write })
    await Promise.all([atLeisure('a'), atLeisure('b')])
    await commit.append(message('a', 'x'.repeat(8)), 'at leisure')
    expect(batches.length).toBe(2)
  })

  it('writes what it has collected when it is closed', async () => {
    const written = atLeisure('a')
    await commit.close()
    await written
    expect(batches).toEqual([['a']])
  })
})
