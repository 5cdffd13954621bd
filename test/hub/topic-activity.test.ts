import { afterEach, beforeEach, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { TopicActivity } from '../../src/hub/topic-activity.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { message, wide } from '../contracts/journal.js'
import { eventually } from '../helpers/wait.js'

const log = createLog({ level: 'silent', format: 'json' })
let journal: MemoryJournal
let now = 0
let activity: TopicActivity
let unwatch: (() => void) | undefined

beforeEach(() => {
  now = 0
  journal = new MemoryJournal({ bounds: wide, log })
  activity = new TopicActivity({ journal, now: () => now })
})
afterEach(async () => {
  unwatch?.()
  await journal.close()
})

const names = (): string[] => activity.busiest(10_000).map(({ topic }) => topic)
const append = (topic: string, payload: string | Buffer = 'x') => journal.append(message(topic, payload))

it('counts the messages of each topic, with their rate and the last payload', async () => {
  unwatch = activity.watch()
  await append('slow', 'one')
  for (let count = 1; count <= 10; count++) await append('fast', `payload ${count}`)
  now = 2000
  activity.rate()
  const [first, second] = activity.busiest(10)
  expect(first).toMatchObject({ topic: 'fast', messages: 10, rate: 2.5, size: 10 })
  expect(Buffer.from(first?.preview ?? []).toString()).toBe('payload 10')
  expect(second).toMatchObject({ topic: 'slow', messages: 1, bytes: 3, rate: 0.25 })
  for (now = 4000; now <= 40_000; now += 2000) activity.rate()
  expect(activity.busiest(2).map(({ rate }) => rate)).toEqual([0, 0])
})

it('begins with the last messages of the journal, which count as none', async () => {
  for (let count = 0; count < 250; count++) await append(`earlier/${count % 2}`, String(count))
  unwatch = activity.watch()
  await append('earlier/1', 'now')
  await eventually(() => names().length === 2)
  const found = activity.busiest(2).map(({ topic, messages, preview }) => [topic, messages, String(preview)])
  expect(new Map(found.map(([topic, ...rest]) => [topic, rest]))).toEqual(
    new Map([
      ['earlier/0', [0, '248']],
      ['earlier/1', [1, 'now']],
    ]),
  )
})

it('keeps 1000 topics, those with the newest messages, and 256 bytes of a payload', async () => {
  unwatch = activity.watch()
  for (let count = 0; count < 1100; count++) {
    await append(`topic/${count}`, Buffer.alloc(1000))
    await append('often')
  }
  expect(names()).toHaveLength(1000)
  expect(names()).toContain('often')
  expect(names()).toContain('topic/1099')
  expect(names()).not.toContain('topic/100')
  expect(activity.busiest(1000).find(({ topic }) => topic === 'topic/1099')).toMatchObject({ size: 1000, bytes: 1000 })
  expect(Math.max(...activity.busiest(1000).map(({ preview }) => preview.length))).toBe(256)
})

it('keeps names of a megabyte', async () => {
  unwatch = activity.watch()
  for (let count = 0; count < 20; count++) await append(`${count}/${'x'.repeat(2 ** 16 - 10)}`)
  expect(names().reduce((size, name) => size + name.length, 0)).toBeLessThanOrEqual(2 ** 20)
  expect(names().length).toBeGreaterThan(10)
})

it('leaves out topics of responses, which whoever knows them may publish to', async () => {
  unwatch = activity.watch()
  await append('$mqway/response/secret')
  await append('a')
  expect(names()).toEqual(['a'])
})

it('counts while somebody watches, and forgets everything after the last one', async () => {
  await append('earlier')
  expect(names()).toEqual([])
  const [first, second] = [activity.watch(), activity.watch()]
  await append('a')
  first()
  first()
  await append('b')
  expect(names()).toContain('b')
  second()
  await append('c')
  expect(names()).toEqual([])
})
