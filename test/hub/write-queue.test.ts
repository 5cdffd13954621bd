import { setImmediate as turn } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { WriteQueue } from '../../src/hub/write-queue.js'

it('has everybody write once, in the order in which they came', async () => {
  const queue = new WriteQueue()
  const written: number[] = []
  for (let number = 0; number < 10_000; number++) queue.add({ flush: () => written.push(number) })
  while (written.length < 10_000) await turn()
  expect(written).toEqual(Array.from({ length: 10_000 }, (_, number) => number))
})

it('has the first ones write before anything else is read', async () => {
  const queue = new WriteQueue()
  const order: string[] = []
  setImmediate(() => order.push('read'))
  queue.add({ flush: () => order.push('written') })
  while (order.length < 2) await turn()
  expect(order).toEqual(['written', 'read'])
})

it('lets others have their turn before all have written that takes time', async () => {
  const queue = new WriteQueue()
  let written = 0
  const slow = {
    flush: () => {
      written++
      for (const end = performance.now() + 1; performance.now() < end; );
    },
  }
  for (let left = 200; left > 0; left--) queue.add(slow)
  while (written === 0) await turn()
  expect(written).toBeLessThan(200)
  while (written < 200) await turn()
})

it('has those write who come while others do, and when nobody is left again', async () => {
  const queue = new WriteQueue()
  const written: string[] = []
  const second = { flush: () => written.push('second') }
  queue.add({
    flush: () => {
      written.push('first')
      queue.add(second)
    },
  })
  while (written.length < 2) await turn()
  await turn()
  queue.add(second)
  while (written.length < 3) await turn()
  expect(written).toEqual(['first', 'second', 'second'])
})
