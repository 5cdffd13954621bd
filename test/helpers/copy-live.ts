import { cp, rm } from 'node:fs/promises'

/** Copies the files of a database that is open, as a crash would leave them: one that it deletes meanwhile is no more. */
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
