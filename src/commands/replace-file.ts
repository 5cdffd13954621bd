import { randomBytes } from 'node:crypto'
import { open, realpath, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { codeOf } from '../base/error-code.js'

/** Mode of a new file. */
const newMode = 0o600

/**
 * Replaces the content of a file atomically. Keeps its mode and owner; follows a symbolic link.
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  const target = await realpath(path).catch(error => (isMissing(error) ? path : Promise.reject(error)))
  const old = await stat(target).catch(error => (isMissing(error) ? undefined : Promise.reject(error)))
  const draft = `${target}.${randomBytes(6).toString('hex')}.tmp`
  const file = await open(draft, 'wx', newMode)
  try {
    await file.writeFile(text)
    if (old !== undefined) {
      // Only root can change the owner; other users own the file, or may not keep its owner.
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

/** Makes a rename durable against a power failure. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  await directory.sync().catch(() => {})
  await directory.close()
}

/** Whether an error is ENOENT. */
export function isMissing(error: unknown): boolean {
  return codeOf(error) === 'ENOENT'
}
