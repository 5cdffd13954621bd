import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, it } from 'vitest'
import { timeLimit } from '../../src/base/time-limit.js'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

const aborted = (signal: AbortSignal) =>
  new Promise<unknown>(resolve => signal.addEventListener('abort', () => resolve(signal.reason), { once: true }))

it('A time limit aborts after a garbage collection, too', async () => {
  const other = new AbortController()
  const over = aborted(timeLimit(100, other.signal).signal)
  await new Promise(setImmediate)
  collectGarbage()
  expect(await over).toMatchObject({ name: 'TimeoutError' })
})

it('A time limit aborts with the other signal, now or later', async () => {
  const other = new AbortController()
  const limit = timeLimit(60_000, other.signal)
  const over = aborted(limit.signal)
  other.abort(new Error('the end'))
  expect(await over).toEqual(new Error('the end'))
  expect([timeLimit(60_000, other.signal).signal.aborted, limit.isOver]).toEqual([true, false])
})

it('A time limit that has ended does not abort', async () => {
  const other = new AbortController()
  const limit = timeLimit(10, other.signal)
  limit.end()
  other.abort()
  await aborted(timeLimit(20).signal)
  expect(limit.signal.aborted).toBe(false)
})
