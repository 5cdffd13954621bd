import { beforeEach, describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { createLog } from '../../src/base/log.js'
import type { Message } from '../../src/mqtt/message.js'
import type { MessageQueueOptions } from '../../src/presence/message-queue.js'
import { type PresenceChange, PresenceMessages, presenceTopic } from '../../src/presence/presence-messages.js'
import { PresenceRegistry } from '../../src/presence/presence-registry.js'
import type { Publisher } from '../../src/sources/publisher.js'
import { eventually } from '../helpers/wait.js'

const log = createLog({ level: 'silent', format: 'json' })

/** A publisher that keeps what it gets, and answers when the test says. */
class TestPublisher implements Publisher {
  connected = true
  readonly messages: Message[] = []
  answer: () => Promise<undefined> = async () => undefined

  publish(message: Message): Promise<undefined> {
    this.messages.push(message)
    return this.answer()
  }
}

const change = (more: Partial<PresenceChange> = {}): PresenceChange => ({
  event: 'join',
  device: 'kitchen',
  user: 'alice',
  transport: 'sse',
  filter: 'news/+/sport',
  time: Date.UTC(2026, 10, 21, 14),
  count: 3,
  ...more,
})

describe('messages of who comes and goes', () => {
  let publisher: TestPublisher
  let messages: PresenceMessages
  const start = (options: Partial<MessageQueueOptions> = {}): void => {
    publisher = new TestPublisher()
    messages = new PresenceMessages({ publisher, bounds: { topicLevels: 32, topicLength: 1024 }, log, ...options })
  }
  beforeEach(() => start())
  const turn = () => new Promise(resolve => setImmediate(resolve))

  it('are dropped, and counted, beyond what may be told', async () => {
    let left = 2
    start({ mayPublish: () => left-- > 0 })
    for (let index = 0; index < 5; index++) messages.publish(change({ device: `device ${index}` }))
    await eventually(() => publisher.messages.length === 2)
    await turn()
    expect([publisher.messages.length, messages.counters.dropped]).toEqual([2, 3])
  })

  it('are published on a topic of their own', async () => {
    messages.publish(change())
    await eventually(() => messages.counters.published === 1)
    const [{ payload, ...rest } = { payload: '' }] = publisher.messages
    expect(rest).toEqual({ topic: 'presence/news/%2B/sport', qos: 0, retain: false })
    expect(JSON.parse(String(payload))).toEqual({
      event: 'join',
      device: 'kitchen',
      user: 'alice',
      transport: 'sse',
      topic: 'news/+/sport',
      time: '2026-11-21T14:00:00.000Z',
      count: 3,
    })
  })

  it('leave out the user where nobody knows', async () => {
    messages.publish(change({ user: undefined }))
    await eventually(() => publisher.messages.length === 1)
    expect(JSON.parse(String(publisher.messages[0]?.payload))).not.toHaveProperty('user')
  })

  it('have topics that differ for filters that differ', () => {
    expect(['#', '%23', 'a/+', 'a/%2B', '/', '%', '50 %/#'].map(presenceTopic)).toEqual([
      'presence/%23',
      'presence/%2523',
      'presence/a/%2B',
      'presence/a/%252B',
      'presence//',
      'presence/%25',
      'presence/50 %25/%23',
    ])
  })

  it('are not of those who listen to presence itself, or to topics of the broker’s', async () => {
    for (const filter of ['presence/#', 'presence/a', '$SYS/#', '$share/g/a']) messages.publish(change({ filter }))
    messages.publish(change({ filter: 'presence' }))
    messages.publish(change({ filter: '#' }))
    await eventually(() => messages.counters.published === 2)
    expect(publisher.messages.map(({ topic }) => topic)).toEqual(['presence/presence', 'presence/%23'])
  })

  it('are not on topics that would be too large for the broker', async () => {
    const [longest, deepest] = [`${'x'.repeat(1024 - 9)}`, 'a/'.repeat(30)]
    messages.publish(change({ filter: `${longest}x` }))
    messages.publish(change({ filter: longest.replace('x', '+') }))
    messages.publish(change({ filter: `${deepest}/` }))
    messages.publish(change({ filter: longest }))
    messages.publish(change({ filter: deepest }))
    await eventually(() => messages.counters.published === 2)
    expect(messages.counters).toEqual({ published: 2, dropped: 0, skipped: 3 })
    expect(publisher.messages.map(({ topic }) => topic)).toEqual([`presence/${longest}`, `presence/${deepest}`])
  })

  it('are dropped while the broker is away, and not told later', async () => {
    publisher.connected = false
    messages.publish(change())
    publisher.connected = true
    messages.publish(change({ device: 'hall' }))
    await eventually(() => messages.counters.published === 1)
    expect(messages.counters).toEqual({ published: 1, dropped: 1, skipped: 0 })
    expect(String(publisher.messages[0]?.payload)).toContain('hall')
  })

  it('are dropped when the broker goes away before they were published', async () => {
    for (let at = 0; at < 500; at++) messages.publish(change())
    publisher.connected = false
    await eventually(() => messages.counters.dropped === 500)
    expect(publisher.messages).toEqual([])
  })

  it('count as dropped where publishing fails, and others go on', async () => {
    publisher.answer = () => Promise.reject(new GatewayError('broker-away'))
    messages.publish(change())
    await eventually(() => messages.counters.dropped === 1)
    publisher.answer = async () => undefined
    messages.publish(change())
    await eventually(() => messages.counters.published === 1)
  })

  it('come in portions, so that ten thousand joins in one turn hold nobody up', async () => {
    const presence = new PresenceRegistry({ grace: 0, onChange: change => messages.publish(change) })
    for (let at = 0; at < 10_000; at++) presence.enter({ device: `d${at}`, transport: 'sse', topics: ['x'] })
    expect(publisher.messages).toEqual([])
    let most = 0
    for (let before = 0; before < 10_000; before = publisher.messages.length) {
      await turn()
      most = Math.max(most, publisher.messages.length - before)
    }
    expect(most).toBe(32)
    const counts = publisher.messages.map(({ payload }) => JSON.parse(String(payload)).count)
    expect(counts).toEqual(Array.from({ length: 10_000 }, (_, at) => at + 1))
    expect(messages.counters.dropped).toBe(0)
  })

  it('wait for a broker that is slow, up to a bound', async () => {
    start({ maxQueued: 2000 })
    const answers: (() => void)[] = []
    publisher.answer = () => new Promise(resolve => answers.push(() => resolve(undefined)))
    for (let at = 0; at < 5000; at++) messages.publish(change({ count: at }))
    expect(messages.counters.dropped).toBe(3000)
    await eventually(() => publisher.messages.length === 32)
    for (let at = 0; at < 20; at++) await turn()
    expect(publisher.messages).toHaveLength(32)
    // There is room again, and then it is let go of what is done.
    while (publisher.messages.length < 1000) {
      for (const answer of answers.splice(0)) answer()
      await turn()
    }
    for (let at = 5000; at < 5900; at++) messages.publish(change({ count: at }))
    expect(messages.counters.dropped).toBe(3000)
    while (publisher.messages.length < 2900) {
      for (const answer of answers.splice(0)) answer()
      await turn()
    }
    const counts = publisher.messages.map(({ payload }) => JSON.parse(String(payload)).count)
    expect(counts).toEqual([...Array(2000).keys(), ...Array.from({ length: 900 }, (_, at) => 5000 + at)])
  })

  it('of one account leave room for those of others, in bytes', async () => {
    publisher.answer = () => new Promise(() => {})
    const filter = 'x'.repeat(900)
    for (let at = 0; at < 20_000; at++) messages.publish(change({ filter, account: 'greedy' }))
    const { dropped } = messages.counters
    expect(dropped).toBeGreaterThan(10_000)
    for (let at = 0; at < 1000; at++) messages.publish(change({ filter, account: 'other' }))
    expect(messages.counters.dropped).toBe(dropped)
  })

  it('come to an end when they are closed', async () => {
    for (let at = 0; at < 300; at++) messages.publish(change())
    await turn()
    messages.close()
    const before = publisher.messages.length
    messages.publish(change())
    for (let at = 0; at < 5; at++) await turn()
    expect(publisher.messages).toHaveLength(before)
  })
})
