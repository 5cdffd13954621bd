import type { AedesPublishPacket, Client } from 'aedes'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { AcknowledgementTracker } from '../../../src/broker/embedded/acknowledgement-tracker.js'

const client = (id: string): Client => ({ id }) as Client
const packet = (brokerCounter: number): AedesPublishPacket => ({ brokerId: 'b', brokerCounter }) as AedesPublishPacket

let tracker: AcknowledgementTracker
let heard: string[]

beforeEach(() => {
  vi.useFakeTimers()
  tracker = new AcknowledgementTracker(({ id }) => ({ clientId: id, user: undefined }))
  heard = []
})
afterEach(() => {
  tracker.close()
  vi.useRealTimers()
})

const track = (counter: number, within = 1000): void =>
  tracker.track(packet(counter), { within, onAcknowledged: ({ clientId }) => heard.push(`${clientId} ${counter}`) })

it('hears of each client that acknowledges a tracked message, once', () => {
  const [one, other] = [client('one'), client('other')]
  track(1)
  track(2)
  tracker.sent(one, 1, packet(1))
  tracker.sent(one, 2, packet(2))
  tracker.sent(one, 3, packet(3))
  tracker.sent(other, 1, packet(2))
  for (const id of [3, 2, 1, 1, 4]) tracker.acknowledged(one, id, true)
  tracker.acknowledged(other, 1, true)
  expect(heard).toEqual(['one 2', 'one 1', 'other 2'])
})

it('hears nothing of a failure, and of an identifier that another message has meanwhile', () => {
  const one = client('one')
  track(1)
  tracker.sent(one, 1, packet(1))
  tracker.acknowledged(one, 1, false)
  tracker.acknowledged(one, 1, true)
  tracker.sent(one, 2, packet(1))
  tracker.sent(one, 2, packet(7))
  tracker.sent(one, 3, { ...packet(1), brokerId: 'earlier' })
  tracker.acknowledged(one, 3, true)
  tracker.acknowledged(one, 2, true)
  expect(heard).toEqual([])
})

it('hears nothing when the time is over, and forgets the message', () => {
  const one = client('one')
  track(1)
  tracker.sent(one, 1, packet(1))
  vi.advanceTimersByTime(1000)
  tracker.acknowledged(one, 1, true)
  track(2, 200_000)
  vi.advanceTimersByTime(199_000)
  tracker.sent(one, 2, packet(2))
  tracker.acknowledged(one, 2, true)
  expect(heard).toEqual(['one 2'])
  vi.advanceTimersByTime(120_000)
  expect(vi.getTimerCount()).toBe(0)
})
