import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BatchedLevel } from '../../src/storage/batched-level.js'
import { RecoveringLevel } from '../../src/storage/recovering-level.js'
import { silentLog } from '../helpers/silent-log.js'
import { eventually } from '../helpers/wait.js'

let directory: string
let level: Level
let recovering: RecoveringLevel
let database: BatchedLevel
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mqway-'))
  level = new Level(directory)
  await level.open()
  recovering = new RecoveringLevel(level, { directory, holds: 'the test' }, silentLog)
  database = new BatchedLevel(recovering)
})
afterEach(async () => {
  await database.close()
  await rm(directory, { recursive: true })
})

const all = { gte: '', lt: '~' }

async function entries(): Promise<[string, string][]> {
  const found: [string, string][] = []
  for await (const [key, value] of database.entries(all)) found.push([key, value.toString()])
  return found
}

describe('changes that are written in batches', () => {
  it('are read at once, and by iterators when they are written', async () => {
    const written = [database.put('a', Buffer.from('1')), database.put('b', Buffer.from('2')), database.del('a')]
    expect(await database.get('a')).toBeUndefined()
    expect(await database.get('b')).toEqual(Buffer.from('2'))
    expect(await database.getMany(['b', 'a'])).toEqual([Buffer.from('2'), undefined])
    expect(await entries()).toEqual([['b', '2']])
    await Promise.all(written)
    expect(await database.get('b')).toEqual(Buffer.from('2'))
    expect(await level.get('a')).toBeUndefined()
  })

  it('are what they would be one after the other', async () => {
    const key = fc.constantFrom('a', 'b', 'c', 'd')
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.record({ put: key, value: fc.nat(99).map(String) }) },
      { weight: 2, arbitrary: fc.record({ del: key }) },
      { weight: 1, arbitrary: fc.record({ clear: fc.constantFrom('a', 'b') }) },
      { weight: 1, arbitrary: fc.constant({ flush: true }) },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async steps => {
        const model = new Map<string, string>()
        const written: Promise<void>[] = []
        for (const each of steps) {
          if ('put' in each) {
            written.push(database.put(each.put, Buffer.from(each.value)))
            model.set(each.put, each.value)
            expect(String(await database.get(each.put))).toBe(each.value)
          } else if ('del' in each) {
            written.push(database.del(each.del))
            model.delete(each.del)
            expect(await database.get(each.del)).toBeUndefined()
          } else if ('clear' in each) {
            written.push(database.clear({ gte: each.clear, lt: `${each.clear}~` }))
            model.delete(each.clear)
          } else await database.flush()
        }
        expect(await entries()).toEqual([...model].sort())
        await Promise.all([...written, database.clear(all)])
      }),
      { numRuns: 100 },
    )
  })

  it('share a write where they come in one turn, and one that cannot be written is told to those of its batch alone', async () => {
    const sizes: number[] = []
    const batch = level.batch.bind(level)
    let fails = false
    Object.assign(level, {
      batch: () => {
        const chained = batch()
        const write = chained.write.bind(chained)
        return Object.assign(chained, {
          write: async () => {
            sizes.push(chained.length)
            if (fails) throw new Error('no space left on device')
            await write()
          },
        })
      },
    })
    await Promise.all([1, 2, 3].map(index => database.put(`${index}`, Buffer.from('x'))))
    expect(sizes).toEqual([3])
    fails = true
    const lost = expect(database.put('lost', Buffer.from('x'))).rejects.toThrow('no space left')
    // It waits for the others' changes, and does not get their errors.
    await database.flush()
    await lost
    fails = false
    await eventually(() => recovering.failure === undefined)
    await database.put('kept', Buffer.from('x'))
    expect(await database.get('lost')).toBeUndefined()
    expect(await level.get('kept')).toBe('x')
  })

  it('are written a megabyte at a time, and when the database is closed', async () => {
    const value = Buffer.alloc(400_000, 'x')
    const written = Array.from({ length: 10 }, (_, index) => database.put(`${index}`, value))
    await written[0]
    expect(await level.get('0')).toBeDefined()
    expect(await level.get('9')).toBeUndefined()
    const closing = database.close()
    await Promise.all(written)
    await closing
    await level.open()
    expect(await level.get('9')).toBeDefined()
  })
})
