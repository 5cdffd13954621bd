import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { describeJournal, type JournalPlace } from '../contracts/journal.js'
import { describeJournalShares } from '../contracts/journal-shares.js'
import { copyLive } from '../helpers/copy-live.js'

const log = createLog({ level: 'silent', format: 'json' })

async function makePlace(): Promise<JournalPlace> {
  const root = await mkdtemp(join(tmpdir(), 'mqway-journal-'))
  let directory = join(root, '0')
  return {
    open: options => openLevelJournal({ ...options, directory, log }),
    // What is in its files at this moment is what the next one finds.
    crash: async journal => {
      const next = join(root, String((await readdir(root)).length))
      await copyLive(directory, next)
      await journal.close()
      directory = next
    },
    dispose: () => rm(root, { recursive: true }),
  }
}

describe('a journal on disk', () => {
  describeJournal(makePlace, { durable: true })
  describe('with shares', () => describeJournalShares(makePlace, { durable: true }))
})
