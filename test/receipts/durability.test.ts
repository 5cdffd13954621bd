import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { DeliveryTracker } from '../../src/hub/delivery-tracker.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { openReceipts } from '../../src/receipts/open-receipts.js'
import { openLevelStore } from '../../src/storage/level-store.js'
import { wide } from '../contracts/journal.js'
import { type RunningProgram, run } from '../helpers/processes.js'
import { eventually } from '../helpers/wait.js'
import { presenceOf } from './rig.js'

const program = fileURLToPath(new URL('./fixtures/receipts-program.js', import.meta.url))
const built = fileURLToPath(new URL('../../dist/receipts/open-receipts.js', import.meta.url))
const log = createLog({ level: 'silent', format: 'json' })

describe('receipts of a process that ends suddenly', () => {
  let directory: string
  let running: RunningProgram | undefined
  /** What it told of each event. */
  const told = new Map<string, string>()

  beforeEach(async () => {
    if (!existsSync(built)) throw new Error('dist/receipts is missing: npm run build')
    directory = await mkdtemp(join(tmpdir(), 'mqway-receipts-'))
    told.clear()
  })
  afterEach(async () => {
    await running?.stop('SIGKILL')
    await rm(directory, { recursive: true })
  })

  const note = (line: string): string => {
    const [id = '', what = ''] = line.split(' ')
    if (id !== 'refused') told.set(id, (told.get(id) ?? '') + what)
    return id
  }

  const kill = async (): Promise<void> => {
    running?.child.kill('SIGKILL')
    await running?.exited()
    // What it had printed, and nobody had read; its last line may be cut off.
    for (;;) {
      const line = await running?.line().catch(() => undefined)
      if (line === undefined) return
      if (/ [pqrm]$/.test(line)) note(line)
    }
  }

  /** Opens what it has left, waits until all deadlines are dealt with, and compares it with what it told. */
  const check = async (): Promise<void> => {
    const journal = await openLevelJournal({ directory: join(directory, 'journal'), bounds: wide, log })
    const missing = new Set([...told].filter(([, what]) => what.includes('q') && !what.includes('m')).map(([id]) => id))
    const receipts = await openReceipts({
      store: await openLevelStore({ directory: join(directory, 'receipts'), log }),
      journal,
      publisher: {
        connected: true,
        publish: async ({ payload }) => {
          const { type, id } = JSON.parse(payload.toString())
          if (type === 'missed') {
            note(`${id} m`)
            missing.delete(id)
          }
          return undefined
        },
      },
      presence: presenceOf(() => []),
      tracking: new DeliveryTracker(),
      log,
      bounds: { maxReceipts: 1_000_000 },
    })
    // Who asked for receipts hears what is missing, whatever happens.
    await eventually(() => missing.size === 0)
    for (const [id, what] of told) {
      const report = await receipts.report(id)
      if (what.includes('r')) expect(report?.receipts).toMatchObject([{ device: 'a', status: 'processed' }])
      if (what.includes('q')) expect(report?.requested).toMatchObject({ devices: ['a', 'b'], from: ['a', 'b'] })
    }
    await receipts.close()
    await journal.close()
  }

  it('are stored if they were acknowledged, whenever the process is killed, and deadlines too', async () => {
    for (let round = 0; round < 2; round++) {
      running = run(process.execPath, [program, directory])
      const lines = 500 + Math.floor(Math.random() * 2500)
      for (let seen = 0; seen < lines; seen++) note(await running.line())
      await kill()
      await check()
    }
    for (const letter of 'pqrm')
      expect([...told.values()].filter(what => what.includes(letter)).length).toBeGreaterThan(100)
  }, 120_000)

  it('continue when a full disk has room again, and none that was acknowledged is lost', async () => {
    // No file may have more than 1 MiB: LevelDB's log is full at some time, and a new one begins when it is opened again.
    const command = `trap '' XFSZ; ulimit -f 1024; exec '${process.execPath}' '${program}' '${directory}'`
    running = run('bash', ['-c', command])
    let refusals = 0
    for (let since = 0; refusals === 0 || since < 300; ) {
      if (note(await running.line()) === 'refused') refusals++
      else if (refusals > 0) since++
    }
    await kill()
    await check()
  }, 120_000)
})
