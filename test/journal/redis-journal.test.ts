import { afterAll, beforeAll, describe } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { openRedisJournal } from '../../src/journal/redis-journal.js'
import { describeJournal, type JournalPlace } from '../contracts/journal.js'
import { describeJournalShares } from '../contracts/journal-shares.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'

const log = createLog({ level: 'silent', format: 'json' })

describeWith('redis-server', 'a journal in Redis', () => {
  let server: RedisServer
  beforeAll(async () => {
    server = await startRedis()
  })
  afterAll(() => server.stop())

  async function makePlace(): Promise<JournalPlace> {
    await server.client.flushall()
    const config = { url: server.url, prefix: 'test:' }
    return {
      open: options => openRedisJournal({ ...options, config, log }),
      // Its connections end, and it gets no others.
      crash: async journal => {
        await server.client.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
        await journal.close()
      },
      dispose: async () => {
        await server.client.flushall()
      },
    }
  }
  describeJournal(makePlace, { durable: true })
  describe('with shares', () => describeJournalShares(makePlace, { durable: true }))
})
