import { describe, expect, it } from 'vitest'
import { QueueFullError, TaskQueue } from '../../src/base/task-queue.js'

/** Work that ends when it is told to, and notes that it began. */
function workshop(turns: TaskQueue) {
  const begun: string[] = []
  const ends = new Map<string, () => void>()
  const start = (name: string): Promise<void> =>
    turns.run(name[0] ?? '', () => {
      begun.push(name)
      return new Promise(resolve => ends.set(name, resolve))
    })
  const end = async (name: string): Promise<void> => {
    ends.get(name)?.()
    await new Promise(resolve => setImmediate(resolve))
  }
  return { begun, start, end }
}

describe('turns', () => {
  it('let as many work as may, and the next when one is done', async () => {
    const turns = new TaskQueue({ concurrent: 2, waiting: 10, waitingPerKey: 10 })
    const { begun, start, end } = workshop(turns)
    const all = ['a1', 'a2', 'a3', 'a4'].map(start)
    expect([begun, turns.waiting]).toEqual([['a1', 'a2'], 2])
    await end('a2')
    expect(begun).toEqual(['a1', 'a2', 'a3'])
    for (const name of ['a1', 'a3', 'a4']) await end(name)
    await Promise.all(all)
    expect(turns.waiting).toBe(0)
    const again = [start('b1'), start('b2')]
    expect(begun.slice(-2)).toEqual(['b1', 'b2'])
    await end('b1')
    await end('b2')
    await Promise.all(again)
  })

  it('come to each key in turn, however many of one wait', async () => {
    const { begun, start, end } = workshop(new TaskQueue({ concurrent: 1, waiting: 10, waitingPerKey: 10 }))
    const all = ['a1', 'a2', 'a3', 'b1', 'c1', 'b2'].map(start)
    for (const name of ['a1', 'a2', 'b1', 'c1', 'a3', 'b2']) await end(name)
    await Promise.all(all)
    expect(begun).toEqual(['a1', 'a2', 'b1', 'c1', 'a3', 'b2'])
  })

  it('are refused where too many wait, of one key and in all', async () => {
    const turns = new TaskQueue({ concurrent: 1, waiting: 4, waitingPerKey: 2 })
    const { start, end } = workshop(turns)
    const taken = ['a1', 'a2', 'a3', 'b1', 'c1'].map(start)
    await expect(turns.run('a', async () => {})).rejects.toThrow(QueueFullError)
    await expect(turns.run('d', async () => {})).rejects.toThrow(QueueFullError)
    for (const name of ['a1', 'a2', 'b1', 'c1', 'a3']) await end(name)
    await Promise.all(taken)
    await expect(turns.run('c', async () => 'done')).resolves.toBe('done')
  })

  it('go on after work that failed', async () => {
    const turns = new TaskQueue({ concurrent: 1, waiting: 1, waitingPerKey: 1 })
    const failing = turns.run('a', () => Promise.reject(new Error('broken')))
    const next = turns.run('a', async () => 'done')
    await expect(failing).rejects.toThrow('broken')
    await expect(next).resolves.toBe('done')
  })
})
