import { pino } from 'pino'
import { afterEach, expect, it } from 'vitest'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import { openRedisJournal } from '../../../src/journal/redis-journal.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { startRedis } from '../../helpers/redis.js'
import { describeWith } from '../../helpers/requires.js'
import { eventually } from '../../helpers/wait.js'
import { bounds, Cleanup, message, sessionOn } from '../rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

describeWith(['redis-server', 'mosquitto'], 'two gateways with one prefix', () => {
  it('are told that they have different brokers, at the first message that does not come back', async () => {
    const redis = await startRedis()
    cleanup.add(() => redis.stop())
    const lines: string[] = []
    const log = pino({ level: 'warn' }, { write: line => void lines.push(line) })
    const start = async () => {
      const broker = await startMosquitto()
      cleanup.add(() => broker.stop())
      const config = { url: redis.url, prefix: 'test:' }
      const journal = await openRedisJournal({ config, bounds, log: pino({ level: 'silent' }) })
      cleanup.add(() => journal.close())
      const options = { shared: journal, publishTimeout: 1000, log }
      const upstream = createUpstream(upstreamAt(`mqtt://127.0.0.1:${broker.port}`), log)
      const session = await sessionOn(upstream, journal, options)
      cleanup.add(() => session.close())
      await eventually(() => session.connected)
      return { session, port: broker.port }
    }
    const first = await start()
    await eventually(() =>
      first.session.publish(message('t', 'x')).then(
        () => true,
        () => false,
      ),
    )
    const second = await start()
    await expect(second.session.publish(message('t', 'y'))).rejects.toMatchObject({ reason: 'publish-timeout' })
    expect(lines.filter(line => line.includes('give each set of gateways its own'))).toEqual([
      expect.stringContaining(`:${second.port} do not become events`),
    ])
  }, 20_000)
})
