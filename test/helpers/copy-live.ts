import { cp, rm } from 'node:fs/promises'

/** Copies the files of an open database, as after a crash; skips files that the database deletes meanwhile. */
export async function copyLive(from: string, to: string): Promise<void> {
  for (;;) {
    try {
      await cp(from, to, { recursive: true })
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      await rm(to, { recursive: true, force: true })
    }
  }
}
