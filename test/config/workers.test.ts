import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ConfigError, loadConfig } from '../../src/config/load.js'
import { workersOf } from '../../src/config/workers.js'

function load(config: object) {
  const cwd = mkdtempSync(join(tmpdir(), 'mqway-workers-'))
  try {
    writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify(config))
    return loadConfig({ argv: [], env: {}, cwd }).config
  } finally {
    rmSync(cwd, { recursive: true })
  }
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
const push = { topics: ['news/#'] }
const journal = { redis: { url: 'redis://127.0.0.1:6379' } }

test('workers are a number, or one for each processor', () => {
  expect(workersOf(load({}))).toBe(1)
  expect(workersOf(load({ broker, workers: 3, push: 'off' }))).toBe(3)
  expect(workersOf(load({ broker, workers: 'auto', push: { ...push, journal } }))).toBe(availableParallelism())
  expect(problems({ broker, workers: 2 })).toEqual([])
})

test.each([
  [{ workers: 0 }, 'workers: 0 must be auto, or a whole number from 1 to 128'],
  [{ workers: 2 }, 'the embedded broker is one process'],
  [{ workers: 'auto' }, 'the embedded broker is one process'],
  [{ broker, workers: 2, tunnels: [{ path: '/a', broker: 'embedded' }] }, 'the embedded broker is one process'],
  [
    { broker, workers: 2, push },
    'workers: 2 needs push.journal.redis, the journal that all workers share: level is for one process',
  ],
  [{ broker, workers: 2, push, data: 'none' }, 'memory is for one process'],
])('%j is refused', (config, message) => {
  const [problem, ...more] = problems(config)
  expect(problem).toContain(message)
  expect(more).toEqual([])
})
