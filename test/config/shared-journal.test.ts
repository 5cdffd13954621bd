import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { ConfigError, loadConfig } from '../../src/config/load.js'
import { pushOf } from '../../src/config/push.js'

const cwd = mkdtempSync(join(tmpdir(), 'mqway-shared-journal-'))
afterAll(() => rmSync(cwd, { recursive: true }))

function load(config: object) {
  writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify(config))
  return loadConfig({ argv: [], env: {}, cwd }).config
}

function problems(config: object): readonly string[] {
  try {
    load(config)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

const broker = 'mqtt://127.0.0.1:1884'
const redis = { url: 'redis://127.0.0.1:6379/1' }
const push = { topics: ['news/#'], journal: { redis } }

test('push.journal is the name of a store, or where Redis is', () => {
  expect(pushOf(load({ broker, push }))).toMatchObject({
    journal: 'redis',
    redis: { ...redis, prefix: 'mqway:' },
    maxEvents: 100_000,
  })
  expect(pushOf(load({ push: { journal: 'memory' } }))).toMatchObject({ journal: 'memory' })
  expect(
    problems({ broker, push: { ...push, journal: { redis: { url: 'unix:/run/redis/redis.sock?db=2' } } } }),
  ).toEqual([])
})

test.each([
  [{ push: { journal: { redis } } }, 'push.journal.redis: ', 'the embedded broker is one process'],
  [
    { broker, push: { ...push, journal: { redis: { url: 'http://x' } } } },
    'push.journal.redis.url',
    'must be redis://',
  ],
  [
    { broker, push: { ...push, journal: { redis: { url: 'redis://:secret@x' } } } },
    'push.journal.redis.url',
    'without a password',
  ],
  [
    { broker, push: { ...push, journal: { redis: { ...redis, passwordFile: 'none' } } } },
    'push.journal.redis.passwordFile',
    'none',
  ],
])('%j is refused', (config, option, reason) => {
  const [problem] = problems(config)
  expect(problem).toContain(option)
  expect(problem).toContain(reason)
})
