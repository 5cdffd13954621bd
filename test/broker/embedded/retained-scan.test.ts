import { expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { Retained } from '../../../src/broker/embedded/retained.js'
import { RetainedMemory } from '../../../src/broker/embedded/storage-backend.js'

it('a scan for a thousand filters is no work where nothing is retained', () => {
  const log = createLog({ level: 'silent', format: 'json' })
  const bounds = { maxRetainedMessages: 10, maxRetainedBytes: 1024 ** 2 }
  const retained = new Retained({ storage: new RetainedMemory(), bounds, log })
  const filters = Array.from({ length: 1000 }, (_, index) => `some/${index}/+/of/${index}/levels/#`)
  const before = process.cpuUsage()
  for (let count = 0; count < 1000; count++) {
    for (const { topics } of retained.scan(filters, () => false)) expect(topics).toEqual([])
  }
  // A set of these filters takes milliseconds to make.
  expect(process.cpuUsage(before).user).toBeLessThan(500_000)
})
