import { randomBytes } from 'node:crypto'
import { open, realpath, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { codeOf } from '../base/error-code.js'

/** A file that is not there yet is for its owner alone. */
const newMode = 0o600

/**
 * Writes a file in one step: whoever reads it sees the old text or the new one. Its mode and owner stay; a symbolic link
 * stays one.
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  const target = await realpath(path).catch(error => (isMissing(error) ? path : Promise.reject(error)))
  const old = await stat(target).catch(error => (isMissing(error) ? undefined : Promise.reject(error)))
  const draft = `${target}.${randomBytes(6).toString('hex')}.tmp`
  const file = await open(draft, 'wx', newMode)
  try {
    await file.writeFile(text)
    if (old !== undefined) {
      // Only root can give a file away; for anybody else it is their own already, or their directory.
      await file.chown(old.uid, old.gid).catch(() => {})
      await file.chmod(old.mode & 0o7777)
    }
    await file.sync()
    await file.close()
    await rename(draft, target)
  } catch (error) {
    await file.close().catch(() => {})
    await rm(draft, { force: true })
    throw error
  }
  await syncDirectory(dirname(target))
}

/** So that the new name of the file is still there after a power failure. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  await directory.sync().catch(() => {})
  await directory.close()
}

/** Whether it says that there is no such file. */
export function isMissing(error: unknown): boolean {
  return codeOf(error) === 'ENOENT'
}
