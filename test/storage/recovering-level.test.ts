import { join } from 'node:path'
import { pino } from 'pino'
import { expect, it } from 'vitest'
import { openDatabase } from '../../src/storage/open-level.js'
import { RecoveringLevel } from '../../src/storage/recovering-level.js'
import { copyLive } from '../helpers/copy-live.js'
import { describeWith } from '../helpers/requires.js'
import { mountSmallDisk } from '../helpers/small-disk.js'
import { eventually } from '../helpers/wait.js'
import { temporaryDirectory } from '../server/rig.js'

describeWith('root', 'a database on a disk that is full for a while', () => {
  it('refuses changes and is read meanwhile, and keeps all that it has confirmed, before and after, for the next start', async () => {
    const disk = await mountSmallDisk(16)
    const directory = join(disk.directory, 'database')
    const logged: string[] = []
    const log = pino({ level: 'info' }, { write: line => void logged.push(JSON.parse(line).msg) })
    const database = new RecoveringLevel(await openDatabase(directory), { directory, holds: 'the test' }, log)
    const confirmed: string[] = []
    const put = async (key: string): Promise<void> => {
      await database.write(level => level.put(key, key.padEnd(50_000, '.')))
      confirmed.push(key)
    }
    await put('before')
    disk.fill()
    await expect(put('full')).rejects.toThrow(/No space left/)
    expect(database.failure).toMatch(/No space left/)
    await expect(put('still full')).rejects.toThrow(/No space left/)
    expect(await (await database.reading()).get('before')).toHaveLength(50_000)
    disk.free()
    await eventually(() => database.failure === undefined)
    for (const key of ['after', 'later']) await put(key)

    const copy = join(disk.directory, 'copy')
    await copyLive(directory, copy)
    await database.close()
    const reopened = await openDatabase(copy)
    expect(await reopened.keys().all()).toEqual(expect.arrayContaining(confirmed))
    expect(confirmed).toEqual(['before', 'after', 'later'])
    await reopened.close()
    expect(logged).toEqual([
      'failed to write the test: refusing changes until they can be written',
      'the test can be written again',
    ])
  })

  it('can be closed while it is full', async () => {
    const disk = await mountSmallDisk(8)
    const directory = join(disk.directory, 'database')
    const log = pino({ level: 'silent' })
    const database = new RecoveringLevel(await openDatabase(directory), { directory, holds: 'the test' }, log)
    disk.fill()
    await expect(database.write(level => level.put('a', '.'.repeat(50_000)))).rejects.toThrow()
    await database.close()
    await expect(database.write(level => level.put('a', 'b'))).rejects.toThrow(/closed/)
  })
})

it('confirms no write that was under way when another one failed: a restart may not find it', async () => {
  const directory = join(await temporaryDirectory(), 'database')
  const log = pino({ level: 'silent' })
  const database = new RecoveringLevel(await openDatabase(directory), { directory, holds: 'the test' }, log)
  const full = new Error('No space left on device')
  const failing = database.write(() => Promise.reject(full))
  const beside = database.write(() => new Promise(resolve => setImmediate(resolve)))
  await expect(failing).rejects.toBe(full)
  await expect(beside).rejects.toBe(full)
  await database.close()
})
