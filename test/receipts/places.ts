import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '../../src/base/log.js'
import { openLevelStore } from '../../src/storage/level-store.js'
import { MemoryStore } from '../../src/storage/memory-store.js'
import type { Store } from '../../src/storage/store.js'
import type { StorePlace } from '../contracts/store.js'
import { copyLive } from '../helpers/copy-live.js'

const log = createLog({ level: 'silent', format: 'json' })

/** A directory for a store. */
export async function makeLevelPlace(): Promise<StorePlace> {
  const root = await mkdtemp(join(tmpdir(), 'mqway-receipts-'))
  let directory = join(root, '0')
  return {
    open: () => openLevelStore({ directory, log }),
    // What is in its files at this moment is what the next one finds.
    crash: async store => {
      const next = join(root, String((await readdir(root)).length))
      await copyLive(directory, next)
      await store.close()
      directory = next
    },
    dispose: () => rm(root, { recursive: true }),
  }
}

/** A store in memory, the same one each time: so it is not the store that loses what a restart should keep. */
export async function makeMemoryPlace(): Promise<StorePlace> {
  const kept = new MemoryStore()
  const open = async (): Promise<Store> => {
    let isClosed = false
    // Whoever had it before has it no more, as with a process that ended.
    const whileOpen = (): MemoryStore => {
      if (isClosed) throw new Error('closed')
      return kept
    }
    return {
      get: async key => whileOpen().get(key),
      range: async (range, limit) => whileOpen().range(range, limit),
      batch: async changes => whileOpen().batch(changes),
      clear: async range => whileOpen().clear(range),
      close: async () => {
        isClosed = true
      },
    }
  }
  return { open, crash: store => store.close(), dispose: () => kept.close() }
}
