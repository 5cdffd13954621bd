import { expect, it } from 'vitest'
import { type Worker, WorkQueue } from '../../src/transports/work-queue.js'
import { eventually } from '../helpers/wait.js'

/** Has so many pieces, each of which takes so many milliseconds, and tells of each. */
function worker(pieces: number, milliseconds: number, done: () => void): Worker {
  return {
    work: () => {
      for (const until = performance.now() + milliseconds; performance.now() < until; );
      done()
      return --pieces > 0
    },
  }
}

it('does what takes long in many turns, between which others have theirs', async () => {
  const queue = new WorkQueue({ length: 2, isBusy: false })
  let [pieces, turns] = [0, 0]
  const count = (): void => {
    turns++
    if (pieces < 50) setImmediate(count)
  }
  queue.add(worker(50, 1, () => pieces++))
  setImmediate(count)
  await eventually(() => pieces === 50)
  expect(turns).toBeGreaterThan(20)
})

it('takes one piece of each in turn, however many somebody has', async () => {
  const queue = new WorkQueue()
  const order: string[] = []
  queue.add(worker(100, 0.1, () => order.push('much')))
  queue.add(worker(2, 0.1, () => order.push('little')))
  await eventually(() => order.length === 102)
  expect(order.slice(0, 4)).toEqual(['much', 'little', 'much', 'little'])
})

it('forgets who has gone', async () => {
  const queue = new WorkQueue()
  let pieces = 0
  const gone = worker(1, 0, () => pieces++)
  queue.add(gone)
  queue.delete(gone)
  queue.add(worker(1, 0, () => (pieces += 10)))
  await eventually(() => pieces > 0)
  expect(pieces).toBe(10)
})

it('takes one piece of each network in turn, however many connections it has', async () => {
  const queue = new WorkQueue()
  const order: string[] = []
  const add = (group: string): void => {
    queue.add({ ...worker(10, 0.1, () => order.push(group)), group })
  }
  for (let left = 10; left > 0; left--) add('many')
  add('one')
  await eventually(() => order.length === 110)
  expect(order.slice(0, 20).filter(name => name === 'one')).toHaveLength(10)
})

it('does steps as pieces, and tells what they come to', async () => {
  const queue = new WorkQueue()
  const steps = function* (): Generator<undefined, string> {
    yield undefined
    yield undefined
    return 'done'
  }
  expect(await queue.run('', steps())).toBe('done')
  const failing = function* (): Generator<undefined, never> {
    yield undefined
    throw new TypeError('no')
  }
  await expect(queue.run('', failing())).rejects.toThrow(TypeError)
})
