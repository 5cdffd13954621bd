import { describe } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { describeJournal, type JournalPlace } from '../contracts/journal.js'
import { describeJournalShares } from '../contracts/journal-shares.js'

const log = createLog({ level: 'silent', format: 'json' })

describe('a journal in memory', () => {
  const place: JournalPlace = {
    open: async options => new MemoryJournal({ ...options, log }),
    crash: journal => journal.close(),
    dispose: async () => {},
  }
  describeJournal(async () => place, { durable: false })
  describe('with shares', () => describeJournalShares(async () => place, { durable: false }))
})
