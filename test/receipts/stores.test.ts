import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { describe, expect, it, onTestFinished } from 'vitest'
import { openLevelReceiptStore } from '../../src/receipts/level-store.js'
import { MemoryReceiptStore } from '../../src/receipts/memory-store.js'
import { describeReceiptStore } from '../contracts/receipt-store.js'
import { makeLevelPlace } from './places.js'

describe('a store of receipts in memory', () => {
  const place = { open: async () => new MemoryReceiptStore(), crash: async () => {}, dispose: async () => {} }
  describeReceiptStore(async () => place, { durable: false })
})

describe('a store of receipts on disk', () => {
  describeReceiptStore(makeLevelPlace, { durable: true })

  it('is moved aside when it is damaged, and a new one begins', async () => {
    const root = await mkdtemp(join(tmpdir(), 'mqway-receipts-'))
    onTestFinished(() => rm(root, { recursive: true }))
    const directory = join(root, 'receipts')
    const logged: Record<string, unknown>[] = []
    const log = pino({ level: 'info' }, { write: line => void logged.push(JSON.parse(line)) })
    const open = () => openLevelReceiptStore({ directory, log, clock: () => Date.UTC(2030, 1, 2, 3, 4, 5) })
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
    await expect(openLevelReceiptStore({ directory: '/dev/null/x', log })).rejects.toMatchObject({
      name: 'StartError',
      message: expect.stringMatching(/^Cannot keep the receipts .*--data DIR/),
    })
  })
})
