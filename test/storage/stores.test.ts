import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { describe, expect, it, onTestFinished } from 'vitest'
import { openLevelStore } from '../../src/storage/level-store.js'
import { MemoryStore } from '../../src/storage/memory-store.js'
import { describeStore } from '../contracts/store.js'
import { makeLevelPlace } from '../receipts/places.js'

describe('a store in memory', () => {
  const place = { open: async () => new MemoryStore(), crash: async () => {}, dispose: async () => {} }
  describeStore(async () => place, { durable: false })
})

describe('a store on disk', () => {
  describeStore(makeLevelPlace, { durable: true })

  it('is moved aside when it is damaged, and a new one begins', async () => {
    const root = await mkdtemp(join(tmpdir(), 'mqway-receipts-'))
    onTestFinished(() => rm(root, { recursive: true }))
    const directory = join(root, 'receipts')
    const logged: Record<string, unknown>[] = []
    const log = pino({ level: 'info' }, { write: line => void logged.push(JSON.parse(line)) })
    const open = () => openLevelStore({ directory, log, clock: () => Date.UTC(2030, 1, 2, 3, 4, 5) })
    const store = await open()
    await store.batch([{ type: 'put', key: 'a', value: 'b' }])
    await expect(open()).rejects.toThrow(/^Another mqway .*--data DIR/)
    await store.close()
    await writeFile(join(directory, 'CURRENT'), 'nonsense')
    const fresh = await open()
    expect(await fresh.get('a')).toBeUndefined()
    await fresh.close()
    expect(await readdir(root)).toEqual(['receipts', 'receipts.damaged-2030-02-02T03-04-05.000Z'])
    expect(logged).toMatchObject([{ level: 50, msg: expect.stringContaining('moved the damaged database') }])
  })

  it('says in one line that it cannot be made', async () => {
    const log = pino({ level: 'silent' })
    await expect(openLevelStore({ directory: '/dev/null/x', log })).rejects.toMatchObject({
      name: 'StartError',
      message: expect.stringMatching(/^Cannot keep the receipts .*--data DIR/),
    })
  })
})
