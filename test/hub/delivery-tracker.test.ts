import { expect, it } from 'vitest'
import { DeliveryTracker } from '../../src/hub/delivery-tracker.js'

const setUp = () => {
  const tracker = new DeliveryTracker()
  const written: string[] = []
  tracker.onWritten = (sequence, device) => written.push(`${sequence} ${device}`)
  return { tracker, written }
}
const filters = ['news/#']

it('deliveries are of no interest before an event is tracked, unless they are remembered', () => {
  const { tracker, written } = setUp()
  expect(tracker.isActive).toBe(false)
  tracker.wrote('a', {}, filters, 0, 10)
  tracker.track(5, 'news/x', ['a'])
  expect([tracker.size, written]).toEqual([1, []])
  tracker.remember()
  expect(tracker.isActive).toBe(true)
})

it('an event is tracked after it was written, of the subscriptions that it was written to', () => {
  const { tracker, written } = setUp()
  tracker.remember()
  const live = {}
  // Between them, nothing matched.
  tracker.wrote('live', live, filters, 4, 5)
  tracker.wrote('live', live, filters, 8, 9)
  tracker.wrote('before', {}, filters, 0, 6)
  tracker.wrote('other', {}, ['sport/#'], 0, 20)
  for (let index = 0; index < 3; index++) tracker.wrote('polls', {}, filters, index * 4, index * 4 + 4)
  tracker.track(7, 'news/x', ['live', 'before', 'other', 'polls', 'nobody'])
  expect(written).toEqual(['7 live', '7 polls'])
  tracker.wrote('before', {}, filters, 6, 20)
  expect(written.slice(2)).toEqual(['7 before'])
  tracker.track(9, 'news/x', ['live'])
  expect([written.at(-1), tracker.size]).toEqual(['9 live', 1])
})

it('what one subscription of a device did not get counts as written to no other one', () => {
  const { tracker, written } = setUp()
  tracker.remember()
  tracker.wrote('a', {}, filters, 0, 5)
  tracker.wrote('a', {}, filters, 10, 15)
  const subscription = {}
  tracker.wrote('b', subscription, filters, 0, 5)
  tracker.hasGap('b')
  tracker.wrote('b', subscription, filters, 10, 15)
  tracker.track(7, 'news/x', ['a', 'b'])
  expect(written).toEqual([])
  tracker.track(12, 'news/x', ['a', 'b'])
  expect(written).toEqual(['12 a', '12 b'])
})
