import { existsSync } from 'node:fs'
import { mkdtemp, open, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Level } from 'level'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Event, parseId } from '../../src/journal/event.js'
import type { Journal } from '../../src/journal/journal.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { sequenceKey } from '../../src/journal/level-records.js'
import { message, readAll, wide } from '../contracts/journal.js'
import { type RunningProgram, run } from '../helpers/processes.js'

const program = fileURLToPath(new URL('./fixtures/journal-program.js', import.meta.url))
const built = fileURLToPath(new URL('../../dist/journal/level-journal.js', import.meta.url))

describe('the journal on disk', () => {
  let root: string
  let directory: string
  let logged: Record<string, unknown>[]
  let journal: Journal | undefined
  const reopen = async (more: { now?: number } = {}): Promise<Journal> => {
    await journal?.close()
    const log = pino({ level: 'info' }, { write: line => void logged.push(JSON.parse(line)) })
    const clock = (): number => more.now ?? Date.now()
    journal = await openLevelJournal({ directory, bounds: { ...wide, maxEvents: 3000 }, log, clock })
    return journal
  }
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'mqway-journal-'))
    directory = join(root, 'journal')
    logged = []
  })
  afterEach(async () => {
    await journal?.close()
    journal = undefined
    await rm(root, { recursive: true })
  })

  it('removes the payload of an event that was not written any more', async () => {
    await (await reopen()).append(message('first', '1'))
    await journal?.close()
    const orphan = sequenceKey('p', 0, 2)
    const options = { keyEncoding: 'buffer', valueEncoding: 'buffer' }
    const before = new Level<Buffer, Buffer>(directory, options)
    await before.put(orphan, Buffer.alloc(300_000))
    await before.close()
    await (await reopen()).close()
    const after = new Level<Buffer, Buffer>(directory, options)
    expect(await after.get(orphan)).toBeUndefined()
    await after.close()
  })

  describe('of a process that ends suddenly', () => {
    let running: RunningProgram | undefined
    afterEach(() => running?.stop('SIGKILL'))

    /** Lets the program run until it has told of `count` events, and kills it. What it told, by id. */
    const runAndKill = async (count: number, told: Map<string, string>): Promise<void> => {
      running = run(process.execPath, [program, directory])
      for (let seen = 0; seen < count; seen++) {
        const [id = '', what = ''] = (await running.line()).split(' ')
        told.set(id, (told.get(id) ?? '') + what)
      }
      running.child.kill('SIGKILL')
      await running.exited()
      // What it had printed, and nobody had read.
      for (;;) {
        const line = await running.line().catch(() => undefined)
        if (line === undefined) return
        const [id = '', what = ''] = line.split(' ')
        if (parseId(id)) told.set(id, (told.get(id) ?? '') + what)
      }
    }

    it('has every event of which anybody was told, at whatever moment it was killed', async () => {
      if (!existsSync(built)) throw new Error('dist/journal/level-journal.js is missing: npm run build')
      const told = new Map<string, string>()
      const seen = { a: 0, w: 0, r: 0 }
      for (let round = 0; round < 8; round++) {
        await runAndKill(1 + Math.floor(Math.random() * 4000), told)
        const again = await reopen()
        expect(logged).toEqual([])
        // It may have been killed before it had let go of what its bounds leave out.
        await again.trim()
        const { epoch, first, head } = again
        const events = new Map((await readAll(again, ['#'], 0)).map(event => [event.id, event]))
        for (const [id, what] of told) {
          const { sequence, epoch: before } = parseId(id) ?? { sequence: Number.NaN, epoch: '' }
          expect(before).toBe(epoch)
          expect(sequence).toBeLessThanOrEqual(head)
          expect(sequence < first || events.has(id)).toBe(true)
          for (const letter of what) seen[letter as 'a']++
        }
        expect(events.size).toBe(head - first + 1)
        await journal?.close()
        journal = undefined
      }
      for (const count of Object.values(seen)) expect(count).toBeGreaterThan(1000)
    }, 120_000)

    it('goes on when a disk that was full has room, and has lost nothing of which anybody was told', async () => {
      // No file may have more than 1 MiB: LevelDB's log is full at some time, and a new one begins when it is opened again.
      const command = `trap '' XFSZ; ulimit -f 1024; exec '${process.execPath}' '${program}' '${directory}' 3000`
      running = run('bash', ['-c', command])
      const told = new Set<string>()
      let refusals = 0
      for (let since = 0; refusals === 0 || since < 200; ) {
        const [id = '', what] = (await running.line()).split(' ')
        if (id === 'refused') refusals++
        else told.add(id)
        if (refusals > 0 && what === 'a') since++
      }
      running.child.kill('SIGKILL')
      await running.exited()
      const again = await reopen()
      await again.trim()
      const ids = new Set((await readAll(again, ['#'], 0)).map(({ id }) => id))
      for (const id of told) {
        const { sequence } = parseId(id) ?? { sequence: Number.NaN }
        expect(sequence < again.first || ids.has(id)).toBe(true)
      }
      expect(ids.size).toBe(again.head - again.first + 1)
    }, 60_000)
  })

  /** A journal with some full segments, closed. */
  const filled = async (count = 2500): Promise<Event[]> => {
    const made = await reopen()
    const filling = Array.from({ length: count }, (_, index) => made.append(message(`t/${index % 7}`, String(index))))
    const events = await Promise.all(filling)
    await made.close()
    journal = undefined
    return events
  }
  const filesOf = async (pattern: RegExp): Promise<string[]> =>
    (await readdir(directory)).filter(name => pattern.test(name)).map(name => join(directory, name))

  it.each([
    ['a manifest of other bytes', async () => writeFile((await filesOf(/^MANIFEST/))[0] ?? '', 'damaged '.repeat(100))],
    ['no manifest', async () => rm((await filesOf(/^MANIFEST/))[0] ?? '')],
    ['another current file', async () => writeFile(join(directory, 'CURRENT'), 'nonsense')],
    ['a table that is gone', async () => rm((await filesOf(/\.ldb$/))[0] ?? '')],
    ['a table that is cut off', async () => truncate((await filesOf(/\.ldb$/))[0] ?? '', 100)],
  ])('moves a database with %s aside, says so, and begins a new epoch', async (_, damage) => {
    const [before] = await filled()
    // Opening it again has LevelDB turn its log into a table.
    await (await reopen()).close()
    journal = undefined
    await damage()
    const fresh = await reopen({ now: Date.UTC(2030, 1, 2, 3, 4, 5) })
    expect([fresh.first, fresh.head]).toEqual([1, 0])
    expect(fresh.epoch).not.toBe(parseId(before?.id ?? '')?.epoch)
    expect(await readdir(root)).toEqual(['journal', 'journal.damaged-2030-02-02T03-04-05.000Z'])
    expect(logged).toMatchObject([{ level: 50, msg: expect.stringContaining('moved the damaged database') }])
    expect((await fresh.append(message('t'))).sequence).toBe(1)
  })

  it('tells who reads of a gap where its tables have other bytes, and goes on behind it', async () => {
    const events = await filled(2900)
    await (await reopen()).close()
    journal = undefined
    for (const file of await filesOf(/\.ldb$/)) {
      const handle = await open(file, 'r+')
      const { size } = await stat(file)
      // In the middle of the events, which sort before everything else.
      await handle.write(Buffer.alloc(600, 0xa5), 0, 600, Math.floor(size / 8))
      await handle.close()
    }
    const damaged = await reopen()
    const read: Event[] = []
    let lost = 0
    for (let position = 0; position < damaged.head; ) {
      const query = { filters: ['#'], after: position, through: damaged.head, limit: 50, maxBytes: 2 ** 20 }
      const portion = await damaged.read(query)
      expect(portion.position).toBeGreaterThan(position)
      lost += portion.after - position
      read.push(...portion.events)
      position = portion.position
    }
    expect(lost).toBeGreaterThan(0)
    expect(read.length + lost).toBe(events.length)
    for (const event of read) expect(event).toEqual(events[event.sequence - 1])
    expect(logged).toMatchObject([{ level: 50, msg: expect.stringContaining('cannot be read') }])
    expect((await damaged.append(message('t'))).sequence).toBe(2901)
  })

  it('begins a new epoch where the machine stopped with it open, because what was written last may be lost', async () => {
    const { epoch } = await reopen()
    await journal?.append(message('t', 'one'))
    await journal?.close()
    journal = undefined
    const database = new Level(directory)
    await database.put('o', 'the id of another start of the machine')
    await database.close()
    const again = await reopen()
    expect(again.epoch).not.toBe(epoch)
    expect(logged).toMatchObject([{ level: 40, msg: expect.stringContaining('the machine stopped') }])
    expect((await readAll(again, ['#'], 0)).map(({ id }) => id)).toEqual([`${again.epoch}-1`])
  })

  it('says in one line that another process has it open, or that it cannot be made', async () => {
    const log = pino({ level: 'silent' })
    await reopen()
    const bounds = wide
    await expect(openLevelJournal({ directory, bounds, log })).rejects.toMatchObject({
      name: 'StartError',
      message: expect.stringMatching(/^Another mqway .*--data DIR/),
    })
    await expect(openLevelJournal({ directory: '/dev/null/x', bounds, log })).rejects.toThrow(
      /^Cannot keep .*--data DIR/,
    )
    expect(await readdir(root)).toEqual(['journal'])
  })
})
