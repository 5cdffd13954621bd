import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '../../src/base/log.js'
import { openLevelReceiptStore } from '../../src/receipts/level-store.js'
import { MemoryReceiptStore } from '../../src/receipts/memory-store.js'
import type { ReceiptStore } from '../../src/receipts/store.js'
import type { ReceiptStorePlace } from '../contracts/receipt-store.js'
import { copyLive } from '../helpers/copy-live.js'

const log = createLog({ level: 'silent', format: 'json' })

/** A directory for a store. */
export async function makeLevelPlace(): Promise<ReceiptStorePlace> {
  const root = await mkdtemp(join(tmpdir(), 'mqway-receipts-'))
  let directory = join(root, '0')
  return {
    open: () => openLevelReceiptStore({ directory, log }),
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
export async function makeMemoryPlace(): Promise<ReceiptStorePlace> {
  const kept = new MemoryReceiptStore()
  const open = async (): Promise<ReceiptStore> => {
    let isClosed = false
    // Whoever had it before has it no more, as with a process that ended.
    const whileOpen = (): MemoryReceiptStore => {
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
