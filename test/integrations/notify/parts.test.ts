import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { parseSmtpUrl } from '../../../src/config/notify.js'
import { parseTemplate } from '../../../src/config/templates.js'
import {
  NotificationQueue,
  type NotificationQueueOptions,
} from '../../../src/integrations/notify/notification-queue.js'
import { oneLine } from '../../../src/integrations/notify/rules.js'
import { isDue, nextDueAt, retryDelay } from '../../../src/integrations/notify/schedule.js'
import { MemoryStore } from '../../../src/storage/memory-store.js'
import type { Store } from '../../../src/storage/store.js'

describe('a template', () => {
  it.each([
    ['plain', [{ text: 'plain' }]],
    ['{topic}: {json.a.b}', [{ name: 'topic' }, { text: ': ' }, { member: ['a', 'b'] }]],
    ['{{x}}', [{ text: '{' }, { text: 'x' }, { text: '}' }]],
    ['{unknown}', undefined],
    ['{topic', undefined],
    ['a}', undefined],
    ['{}', undefined],
  ])('%j is %j', (text, parts) => {
    expect(parseTemplate(text)).toEqual(parts)
  })

  it('gives any text back in which each brace is there twice', () => {
    fc.assert(
      fc.property(fc.string(), text => {
        const parts = parseTemplate(text.replaceAll('{', '{{').replaceAll('}', '}}'))
        expect(parts?.map(part => ('text' in part ? part.text : '?')).join('')).toBe(text)
      }),
    )
  })
})

test('a subject is one line, whatever comes', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('a', '\r', '\n', '\u2028', '\u0085', '\0', '\t', '😀') }), text => {
      expect(oneLine(text)).not.toMatch(/[\p{Cc}\u2028\u2029]/u)
    }),
  )
})

test('a mail is made after it was collected for, and not because of a clock that was put right since', () => {
  const pace = { first: 1000, collect: 10, sent: [], atMost: { count: 2, per: 100 } }
  expect(nextDueAt(1005, pace)).toBe(1010)
  expect(nextDueAt(1005, { ...pace, sent: [900, 950] })).toBe(1010)
  expect(nextDueAt(1005, { ...pace, sent: [950, 990] })).toBe(1050)
  expect(nextDueAt(500, pace)).toBe(500)
  expect(nextDueAt(500, { ...pace, sent: [499, 9_000_000, 9_000_001] })).toBe(500)
  expect(nextDueAt(500, { ...pace, sent: [490, 499, 9_000_000] })).toBe(590)
})

test('an attempt is due at its time, and where that is further away than any attempt is put off', () => {
  expect(isDue(1000, 999)).toBe(false)
  expect(isDue(1000, 1000)).toBe(true)
  expect(isDue(3_600_999, 999)).toBe(false)
  expect(isDue(3_601_000, 999)).toBe(true)
})

test('no time has more mails than there may be', () => {
  const steps = fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 50 })
  const rate = fc.record({ count: fc.integer({ min: 1, max: 4 }), per: fc.integer({ min: 1, max: 100 }) })
  fc.assert(
    fc.property(steps, rate, fc.integer({ min: 0, max: 30 }), (waits, { count, per }, collect) => {
      const sent: number[] = []
      let now = 0
      for (const wait of waits) {
        now += wait
        const at = nextDueAt(now, { first: now, collect, sent, atMost: { count, per } })
        expect(at).toBeGreaterThanOrEqual(now + collect)
        now = at
        sent.push(at)
      }
      for (const at of sent)
        expect(sent.filter(other => other >= at && other < at + per).length).toBeLessThanOrEqual(count)
    }),
  )
})

test('attempts become rarer, and never rarer than one in an hour', () => {
  const waits = Array.from({ length: 100 }, (_, index) => retryDelay(index + 1, { first: 30_000, max: 3_600_000 }))
  expect(waits.slice(0, 3)).toEqual([30_000, 60_000, 120_000])
  expect(new Set(waits.slice(10))).toEqual(new Set([3_600_000]))
})

const log = createLog({ level: 'silent', format: 'json' })

function openQueue(store: Store, options: Partial<NotificationQueueOptions> = {}): Promise<NotificationQueue> {
  return NotificationQueue.open({ store, boundsOf: () => ({ count: 100, length: 262_144 }), log, ...options })
}

test('a rule keeps no more text than a mail may have, and counts the rest', async () => {
  const book = await openQueue(new MemoryStore())
  const entry = { rule: 'a', entry: { subject: 's', text: 'x'.repeat(30_000), topic: 't', time: 1 } }
  await book.take(Array(5).fill(entry), undefined, 1)
  await book.take(Array(15).fill(entry), undefined, 1)
  expect(book.batchOf('a')?.entries).toHaveLength(8)
  expect(book.batchOf('a')?.more).toBe(12)
  expect(book.counters.get('a')).toEqual({ collected: 20, dropped: 12 })
  await book.post('a', [], 2, 1)
  await book.take([entry], undefined, 3)
  expect(book.batchOf('a')).toMatchObject({ entries: [entry.entry], more: 0, first: 3 })
})

test('a webhook has at most so many characters, with some more for each event, and what does not fit is told once', async () => {
  const told: number[] = []
  let isFull = true
  const store = new MemoryStore()
  const book = await openQueue(
    {
      ...{ get: key => store.get(key), range: (range, limit) => store.range(range, limit) },
      ...{ clear: range => store.clear(range), close: () => store.close() },
      batch: async changes => {
        if (isFull) throw new Error('no space left on device')
        await store.batch(changes)
      },
    },
    {
      boundsOf: () => ({ count: 10, length: 100, overhead: 20 }),
      onDropped: async dropped => {
        told.push(dropped.length)
      },
    },
  )
  const entry = { rule: 'a', entry: { subject: '', text: 'x'.repeat(13), topic: '', time: 1 } }
  const found = Array(5).fill(entry)
  for (let attempt = 0; attempt < 3; attempt++) await expect(book.take(found, 'c', 1)).rejects.toThrow('no space')
  expect(book.batchOf('a')).toBeUndefined()
  isFull = false
  await book.take(found, 'c', 1)
  expect(told).toEqual([2])
  expect(book.batchOf('a')).toMatchObject({ more: 2, length: 39 })
  const call = { rule: 'a', id: '1', text: '', events: 2, dropped: 2, created: 1 }
  await book.postCall(call, 2, 0)
  expect(book.batchOf('a')).toMatchObject({ more: 0, length: 13, first: 1 })
  const [queued] = book.calls
  if (queued) await book.callGivenUp(queued)
  expect(book.batchOf('a')).toMatchObject({ more: 4, length: 13 })
  const again = await openQueue(store)
  expect(again.batchOf('a')).toEqual(book.batchOf('a'))
  expect(again.calls).toEqual([])
})

test('what a book knows is in its store, after each step', async () => {
  const store = new MemoryStore()
  const book = await openQueue(store)
  const entry = (subject: string) => ({ rule: 'a', entry: { subject, text: '', topic: 't', time: 1 } })
  await book.take([entry('1'), entry('2')], 'cursor', 5)
  for (let index = 0; index < 120; index++) await book.take([entry(`more ${index}`)], undefined, 6)
  const mail = { rule: 'a', recipient: 'x@y', to: ['x@y'], subject: 's', text: 't', messageId: '<1@y>', created: 9 }
  await book.take([{ ...entry('other'), rule: 'b' }], undefined, 7)
  await book.post('b', [mail, { ...mail, recipient: 'z@y' }], 8, 3)
  const [done] = book.mails
  if (done) await book.done(done)
  const again = await openQueue(store)
  expect(again.mailLength).toBe(book.mailLength)
  for (const rule of ['a', 'b']) {
    expect(again.batchOf(rule)).toEqual(book.batchOf(rule))
    expect(again.sentOf(rule)).toEqual(book.sentOf(rule))
  }
  expect(again.batchOf('a')).toMatchObject({ more: 22, first: 5 })
  expect(again.mails).toEqual(book.mails)
  expect(again.mails.map(({ recipient }) => recipient)).toEqual(['z@y'])
  expect(again.cursor).toBe('cursor')
})

test.each([
  ['smtp://mail.example.org', { host: 'mail.example.org', port: 587, secure: false }],
  ['smtps://[::1]', { host: '::1', port: 465, secure: true }],
  ['smtp://localhost:25/', { host: 'localhost', port: 25, secure: false }],
  ['smtp://user@host', undefined],
  ['http://host', undefined],
  ['smtp://host/path', undefined],
])('%s is a mail server: %j', (url, address) => {
  expect(parseSmtpUrl(url)).toEqual(address)
})
