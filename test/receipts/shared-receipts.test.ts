import { afterEach, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { DeliveryTracker } from '../../src/hub/delivery-tracker.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { openSharedReceipts } from '../../src/receipts/shared-receipts.js'
import type { Coordinator } from '../../src/storage/coordinator.js'
import { MemoryStore } from '../../src/storage/memory-store.js'
import { openSharedRedis } from '../../src/storage/shared-redis.js'
import { message, wide } from '../contracts/journal.js'
import { startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { Cleanup } from '../sources/rig.js'
import { presenceOf, TestClock, TestPublisher } from './rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

const log = createLog({ level: 'silent', format: 'json' })

describeWith(['redis-server'], 'receipts that several gateways share', () => {
  /** @param token of this gateway, if it is the coordinator */
  const start = async (token?: string) => {
    const redis = await startRedis()
    cleanup.add(() => redis.stop())
    const shared = await openSharedRedis({ url: redis.url, prefix: 'test:' }, log)
    cleanup.add(() => shared.close())
    const coordinator = { key: 'test:coordinator', token, isBrokerSettled: true, watch: () => () => {} }
    const clock = new TestClock()
    const [publisher, tracking] = [new TestPublisher(), new DeliveryTracker()]
    const journal = new MemoryJournal({ bounds: wide, log, clock: clock.now })
    const receipts = await openSharedReceipts({
      ...{ shared, journal, publisher, tracking, clock, log },
      coordinator: coordinator as unknown as Coordinator,
      presence: presenceOf(() => []),
      bounds: { maxReceipts: 10_000 },
      openStore: () => new MemoryStore(),
      catchUp: async () => {},
    })
    cleanup.add(() => receipts.close())
    return { redis, coordinator, clock, publisher, tracking, journal, receipts }
  }

  it('publish nothing while another gateway may be the coordinator', async () => {
    const { coordinator, clock, publisher, journal, receipts } = await start('token')
    const event = await journal.append(message('t'))
    await receipts.reserve('t', { from: ['d'], within: 1000 }, 'a').confirm(event)
    // Its lease ended while it was stopped.
    coordinator.token = undefined
    clock.pass(2000)
    await eventually(() => clock.timers > 0)
    expect(publisher.messages).toEqual([])
    coordinator.token = 'token'
    await eventually(() => {
      clock.pass(1000)
      return publisher.messages.length > 0
    })
    expect(publisher.told()).toMatchObject([{ type: 'missed', devices: ['d'] }])
  })

  it('report deliveries to the coordinator in parts', async () => {
    const { redis, tracking } = await start()
    for (let index = 0; index < 2500; index++) tracking.onWritten(index % 3, `device ${index}`)
    const calls = async (): Promise<string[]> =>
      (await redis.client.xrange('test:receipts:calls', '-', '+')).map(([, fields]) => fields[5] ?? '')
    const isReport = (body: string): boolean => body.includes('"wrote"')
    await eventually(async () => (await calls()).some(isReport))
    const [report = '{}'] = (await calls()).filter(isReport)
    const { written } = JSON.parse(report) as { written: [number, string[]][] }
    expect(written.flatMap(([, devices]) => devices)).toHaveLength(1000)
  })
})
