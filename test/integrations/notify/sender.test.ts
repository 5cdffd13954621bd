import { Writable } from 'node:stream'
import { expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { SendError } from '../../../src/integrations/notify/channel.js'
import { NotificationQueue, type QueuedMail } from '../../../src/integrations/notify/notification-queue.js'
import { Sender } from '../../../src/integrations/notify/sender.js'
import { MemoryStore } from '../../../src/storage/memory-store.js'
import type { StoreChange } from '../../../src/storage/store.js'
import { eventually } from '../../helpers/wait.js'
import { TestClock } from '../../receipts/rig.js'

/** A store that can do without room. */
class FullStore extends MemoryStore {
  isFull = false

  override async batch(changes: readonly StoreChange[]): Promise<void> {
    if (this.isFull) throw new Error('no space left on device')
    await super.batch(changes)
  }
}

/** What sends the mails of a queue, of which each attempt takes a minute and `isTaken` says what becomes of it. */
async function started(recipients: readonly string[], isTaken: (recipient: string) => boolean, isShared = false) {
  const clock = new TestClock()
  const store = new FullStore()
  const logged: string[] = []
  const destination = new Writable({
    write: (chunk, _encoding, done) => {
      logged.push(JSON.parse(String(chunk)).msg)
      done()
    },
  })
  const log = createLog({ level: 'info', format: 'json' }, destination)
  const queue = await NotificationQueue.open({ store, boundsOf: () => ({ count: 100, length: 262_144 }), log })
  const mail = { rule: 'a', to: [], subject: 's', text: 't', messageId: '<1@y>', created: clock.now() }
  await queue.post(
    'a',
    recipients.map(recipient => ({ ...mail, recipient })),
    clock.now(),
    1,
  )
  const attempts: string[] = []
  const channel = {
    noun: 'a mail',
    giveUpAfter: 86_400_000,
    delays: { first: 30_000, max: 3_600_000 },
    sentLevel: 'info' as const,
    fieldsOf: ({ recipient }: QueuedMail) => ({ recipient }),
    givenUp: async () => log.error('Failed to send a mail: given up'),
    send: async ({ recipient }: QueuedMail) => {
      attempts.push(recipient)
      clock.pass(60_000)
      if (!isTaken(recipient)) throw new SendError('no answer', { isShared })
    },
    close: () => {},
  }
  const remove = (mail: QueuedMail) => queue.done(mail)
  const sender = new Sender({ items: () => queue.mails, channel, remove, onDone: () => {}, clock, log })
  return { sender, queue, store, clock, attempts, logged }
}

it('mails that take long and fail keep no others waiting', async () => {
  const { sender, attempts } = await started(['a', 'b', 'c'], recipient => recipient === 'c')
  sender.wake()
  await eventually(() => sender.counters.sent === 1)
  expect(attempts.slice(0, 3)).toEqual(['a', 'b', 'c'])
  await sender.close()
})

it('while none is taken one is tried for all, and then all go at once', async () => {
  let isThere = false
  const { sender, clock, attempts } = await started(['a', 'b', 'c', 'd'], () => isThere, true)
  sender.wake()
  await eventually(() => clock.timers === 1)
  expect(attempts).toEqual(['a'])
  clock.pass(29_999)
  expect(attempts).toEqual(['a'])
  clock.pass(1)
  await eventually(() => clock.timers === 1)
  expect(attempts).toEqual(['a', 'b'])
  isThere = true
  clock.pass(60_000)
  await eventually(() => sender.counters.sent === 4)
  expect(attempts.slice(2).sort()).toEqual(['a', 'b', 'c', 'd'])
  await sender.close()
})

it('a mail that was taken is not given up, although that cannot be written down and no other is taken', async () => {
  const { sender, store, clock, attempts, logged } = await started(['a', 'b'], recipient => recipient === 'a', true)
  store.isFull = true
  sender.wake()
  await eventually(() => clock.timers === 1)
  store.isFull = false
  for (let hour = 0; hour < 30; hour++) {
    await eventually(() => clock.timers <= 1)
    clock.pass(3_600_000)
  }
  await eventually(() => sender.counters.failed === 1)
  expect(sender.counters.sent).toBe(1)
  expect(attempts.filter(recipient => recipient === 'a')).toHaveLength(1)
  expect(logged.filter(text => text.includes('given up'))).toHaveLength(1)
  await sender.close()
})

it('while none is taken, no mail waits for longer than it may', async () => {
  const { sender, queue, clock, attempts } = await started(['a', 'b', 'c'], () => false, true)
  sender.wake()
  for (let hour = 0; hour < 30 && queue.mails.length > 0; hour++) {
    await eventually(() => clock.timers === 1 || queue.mails.length === 0)
    clock.pass(3_600_000)
  }
  await eventually(() => queue.mails.length === 0)
  expect(sender.counters.failed).toBe(3)
  expect(attempts.length).toBeLessThan(40)
  await sender.close()
})

it('a mail of which it cannot be written down that it was sent is not sent again, and that is said once', async () => {
  const { sender, queue, store, clock, attempts, logged } = await started(['a'], () => true)
  store.isFull = true
  sender.wake()
  for (let second = 0; second < 10; second++) {
    await eventually(() => clock.timers === 1)
    clock.pass(1000)
  }
  store.isFull = false
  await eventually(() => clock.timers === 1)
  clock.pass(1000)
  await eventually(() => queue.mails.length === 0)
  expect(attempts).toEqual(['a'])
  expect(logged).toEqual([
    'Sent a mail',
    'Failed to store mails and webhook calls',
    'Mails and webhook calls are stored again',
  ])
  await sender.close()
})
