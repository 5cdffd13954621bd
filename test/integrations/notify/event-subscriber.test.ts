import { expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { openHub } from '../../../src/hub/hub.js'
import { EventSubscriber } from '../../../src/integrations/notify/event-subscriber.js'
import { formatId } from '../../../src/journal/event.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import { message, wide } from '../../contracts/journal.js'
import { eventually } from '../../helpers/wait.js'
import { TestClock } from '../../receipts/rig.js'

const log = createLog({ level: 'silent', format: 'json' })

/** A listener whose taker has to be let go on with each portion. */
async function started({ maxQueuedEvents = 1000 } = {}) {
  const clock = new TestClock()
  const journal = new MemoryJournal({ bounds: wide, log, clock: clock.now })
  const recent = { maxEvents: 10, maxBytes: 1024 }
  const hub = await openHub({ journal, bounds: { maxQueuedEvents, maxQueuedBytes: 1024 ** 2, recent }, log })
  const taken: string[] = []
  const offered: string[][] = []
  let proceed: ((failure?: Error) => void) | undefined
  const listener = new EventSubscriber<string>({
    ...{ hub, filters: ['t/#'], cursor: formatId(journal.epoch, 0), clock, log },
    read: ({ payload }) => {
      if (payload.toString() === 'broken') throw new Error('a mistake')
      return payload.toString().startsWith('no') ? [] : [payload.toString()]
    },
    take: async found => {
      offered.push([...found])
      await new Promise<void>((resolve, reject) => {
        proceed = failure => (failure ? reject(failure) : resolve())
      })
      taken.push(...found)
    },
  })
  onTestFinished(async () => {
    const ended = listener.end()
    proceed?.()
    await ended
    hub.close()
    await journal.close()
  })
  return {
    clock,
    hub,
    taken,
    offered,
    publish: (text: string) => journal.append(message('t/1', text)),
    go: (failure?: Error) => {
      const go = proceed
      proceed = undefined
      go?.(failure)
    },
  }
}

it('what could not be written down is offered again, before what came after it', async () => {
  const { clock, taken, offered, publish, go } = await started()
  await publish('a')
  await eventually(() => offered.length === 1)
  await publish('b')
  go(new Error('no space left on device'))
  await eventually(() => clock.timers === 1)
  clock.pass(1000)
  await eventually(() => offered.length === 2)
  go()
  await eventually(() => offered.length === 3)
  go()
  await eventually(() => taken.length === 2)
  expect(offered).toEqual([['a'], ['a'], ['b']])
  expect(taken).toEqual(['a', 'b'])
})

it('a listener that is cut off because it takes too long gets the rest from the journal, once and in order', async () => {
  const { clock, hub, taken, publish, go } = await started({ maxQueuedEvents: 5 })
  const texts = Array.from({ length: 100 }, (_, index) => `${index}`)
  for (const text of texts.slice(0, 50)) await publish(text)
  await eventually(() => hub.counters.delivered > 0)
  for (const text of texts.slice(50)) await publish(text)
  await eventually(() => {
    go()
    clock.pass(1000)
    return taken.length >= 100
  })
  expect(taken).toEqual(texts)
  expect(hub.counters.cutOff).toBeGreaterThan(0)
})

it('a message that cannot be read keeps nobody else waiting', async () => {
  const { taken, publish, go } = await started()
  await publish('broken')
  await publish('a')
  await eventually(() => {
    go()
    return taken.length > 0
  })
  expect(taken).toEqual(['a'])
})

it('of what nobody wants, nothing is written down', async () => {
  const { offered, publish, hub, go, taken } = await started()
  for (let index = 0; index < 10; index++) await publish('nothing')
  await publish('a')
  await eventually(() => offered.length === 1)
  go()
  await eventually(() => taken.length === 1)
  expect(offered).toEqual([['a']])
  expect(hub.counters.delivered).toBe(11)
})
