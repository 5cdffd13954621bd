import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { message, readAll, wide } from '../contracts/journal.js'

const log = createLog({ level: 'silent', format: 'json' })

/** Brings a journal without rules into the form that versions without shares wrote. */
async function downgrade(directory: string, epoch: string, first: number): Promise<void> {
  const options = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
  const database = new Level<Buffer, Buffer>(directory, options)
  for (const [kind, oldKind] of [
    ['i', 't'],
    ['l', 'm'],
  ] as const) {
    for await (const [key, record] of database.iterator({ gte: Buffer.from(kind), lt: Buffer.from(`${kind}\xff`) })) {
      const oldKey = Buffer.alloc(9, oldKind)
      oldKey.writeBigUInt64BE(BigInt(key.readUIntBE(3, 6) / 1024 - 1), 1)
      const run = Buffer.alloc(8)
      run.writeDoubleLE(record.readDoubleLE(0) / 1024 - 1)
      await database.batch([
        { type: 'put', key: oldKey, value: Buffer.concat([run, record.subarray(24)]) },
        { type: 'del', key },
      ])
    }
  }
  const state = Buffer.alloc(39)
  state.write(epoch, 'latin1')
  for (const [index, number] of [first, 5000, 5000 - first + 1].entries()) state.writeDoubleBE(number, 15 + index * 8)
  await database.put(Buffer.from('s'), state)
  await database.close()
}

it('a journal on disk of a version without shares is read on, ids and all', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-journal-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  const bounds = { ...wide, maxEvents: 3500 }
  const before = await openLevelJournal({ directory, bounds, log })
  await Promise.all(Array.from({ length: 5000 }, (_, index) => before.append(message(`t/${index % 3}`))))
  await before.trim()
  const events = await readAll(before, ['t/1'], 0)
  const { epoch, first } = before
  await before.close()
  await downgrade(directory, epoch, first)

  const journal = await openLevelJournal({ directory, bounds, log })
  onTestFinished(() => journal.close())
  expect(journal).toMatchObject({ epoch, first, head: 5000, size: 3500 })
  expect(await readAll(journal, ['t/1'], first - 1)).toEqual(events)
  expect(await journal.latest(['t/1'], events.length - 1)).toBe(events[0]?.sequence)
  await Promise.all(Array.from({ length: 2000 }, () => journal.append(message('t/1'))))
  await journal.trim()
  expect(journal).toMatchObject({ first: first + 2000, head: 7000, size: 3500 })
  expect(await readAll(journal, ['t/1'], journal.first - 1)).toHaveLength(2000 + 500)
})
