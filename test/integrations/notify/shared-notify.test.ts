import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { notify as notifySection } from '../../../src/config/notify.js'
import { openHub } from '../../../src/hub/hub.js'
import { openSharedNotify } from '../../../src/integrations/notify/shared-notify.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import { Coordinator } from '../../../src/storage/coordinator.js'
import { RedisStore } from '../../../src/storage/redis-store.js'
import { openSharedRedis } from '../../../src/storage/shared-redis.js'
import { eventJson } from '../../../src/transports/event-json.js'
import { wide } from '../../contracts/journal.js'
import { startRedis } from '../../helpers/redis.js'
import { describeWith } from '../../helpers/requires.js'
import { eventually } from '../../helpers/wait.js'
import { TestClock } from '../../receipts/rig.js'
import { startReceiver } from './receiver.js'

const log = createLog({ level: 'silent', format: 'json' })

describeWith('redis-server', 'mails and webhook calls of several gateways', () => {
  it('say once that no gateway reaches the broker, and once that one does again', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mqway-shared-notify-'))
    const server = await startRedis()
    onTestFinished(async () => {
      await server.stop()
      rmSync(directory, { recursive: true })
    })
    writeFileSync(join(directory, 'sendmail'), `#!/bin/sh\ncat >> ${directory}/sent\n`, { mode: 0o755 })
    writeFileSync(join(directory, 'sent'), '')
    const events = ['broker-away', 'broker-back'] as const
    const hook = await startReceiver()
    onTestFinished(() => hook.close())
    const webhook = { url: hook.url, secret: `whsec_${Buffer.alloc(32).toString('base64')}` }
    const rules = [
      { events: [...events], to: ['ops@example.org'], collect: '0ms' },
      { events: [...events], webhook, collect: '0ms' },
    ]
    const config = notifySection.parse({ mail: { from: 'mqway@example.org', sendmail: 'sendmail' }, rules })
    const start = async () => {
      const shared = await openSharedRedis({ url: server.url, prefix: 'test:' }, log)
      const clock = new TestClock()
      const journal = new MemoryJournal({ bounds: wide, log, clock: clock.now })
      const recent = { maxEvents: 100, maxBytes: 1024 ** 2 }
      const bounds = { maxQueuedEvents: 1000, maxQueuedBytes: 1024 ** 2, recent }
      const hub = await openHub({ journal, bounds, log })
      const coordinator = new Coordinator({ shared, readerLease: 'test:lease', canPublish: () => true })
      const notify = await openSharedNotify({
        ...{ config, hub, journal, coordinator, clock, cwd: directory, log },
        encode: event => eventJson(event, { json: false }),
        deadLetters: undefined,
        isConnected: () => coordinator.isBrokerRead,
        catchUp: async () => {},
        openStore: token => new RedisStore({ redis: shared.redis, lease: coordinator.key, token, key: 'test:notify' }),
      })
      const close = async (): Promise<void> => {
        await notify.close()
        await coordinator.close()
        await shared.close()
      }
      onTestFinished(close)
      return { clock, notify, coordinator, close }
    }
    const subjects = () => readFileSync(join(directory, 'sent'), 'utf8').match(/(?<=^Subject: ).*/gm) ?? []
    const pass = async ({ clock }: { clock: TestClock }): Promise<void> => {
      for (let index = 0; index < 12; index++) {
        await new Promise(setImmediate)
        clock.pass(5000)
      }
    }
    const [a, b] = [await start(), await start()]
    await eventually(() => a.clock.timers + b.clock.timers > 0)
    const [first, second] = a.coordinator.token === undefined ? [b, a] : [a, b]
    await Promise.all([pass(first), pass(second)])
    await eventually(() => first.notify.figures.mails.sent === 1)
    await first.close()
    expect(first.notify.figures.mails).toMatchObject({ sent: 1, waiting: 0 })
    await eventually(() => second.clock.timers > 0)
    await pass(second)
    await server.client.set('test:lease', 'a reader')
    await eventually(() => second.coordinator.isBrokerRead)
    await pass(second)
    await eventually(() => second.notify.figures.mails.sent === 1)
    expect(subjects()).toEqual(['The broker is away', 'The broker is back'])
    await eventually(() => second.notify.figures.webhooks.get('rule-2')?.sent === 1)
    expect(first.notify.figures.webhooks.get('rule-2')).toMatchObject({ sent: 1, collected: 1, waiting: 0 })
    expect(hook.calls.flatMap(({ json }) => json.events.map(event => event['event']))).toEqual(events)
  }, 20_000)
})
