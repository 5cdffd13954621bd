import { expect, it } from 'vitest'
import { BrokerWatch } from '../../../src/integrations/notify/broker-watch.js'
import { TestClock } from '../../receipts/rig.js'

it('a clock that is put right neither makes a broker missing nor hides one that is', () => {
  let shift = 0
  let isThere = false
  const timers = new TestClock()
  const after = timers.after.bind(timers)
  const clock = { now: () => timers.now() + shift, monotonic: timers.monotonic, after }
  const told: string[] = []
  const onEvent = (_: string, { text }: { text: string }) => told.push(text)
  const watch = new BrokerWatch({ isConnected: () => isThere, isReported: false, onEvent, clock })
  timers.pass(10_000)
  shift = 86_400_000
  timers.pass(20_000)
  expect(told).toEqual([])
  shift = -86_400_000
  timers.pass(5000)
  expect(told).toEqual(['The broker has been unavailable for 30 seconds.'])
  isThere = true
  timers.pass(5000)
  expect(told).toEqual([expect.any(String), 'The broker is back after 35 seconds.'])
  watch.close()
})

it('a broker that was reported before is not reported again, and its return is', () => {
  let isThere = false
  const clock = new TestClock()
  const told: string[] = []
  const onEvent = (_: string, { text }: { text: string }) => told.push(text)
  const watch = new BrokerWatch({ isConnected: () => isThere, isReported: true, onEvent, clock })
  clock.pass(60_000)
  expect(told).toEqual([])
  isThere = true
  clock.pass(5000)
  expect(told).toEqual(['The broker is back.'])
  isThere = false
  clock.pass(35_000)
  isThere = true
  clock.pass(5000)
  expect(told.slice(1)).toEqual([
    'The broker has been unavailable for 30 seconds.',
    expect.stringContaining('back after'),
  ])
  watch.close()
})
