import { expect, it } from 'vitest'
import { BrokerWatch } from '../../../src/integrations/mail/broker-watch.js'
import { TestClock } from '../../receipts/rig.js'

it('a clock that is put right neither makes a broker missing nor hides one that is', () => {
  let shift = 0
  let isThere = false
  const timers = new TestClock()
  const after = timers.after.bind(timers)
  const clock = { now: () => timers.now() + shift, monotonic: timers.monotonic, after }
  const told: string[] = []
  const watch = new BrokerWatch({ isConnected: () => isThere, onEvent: (_, { text }) => told.push(text), clock })
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
