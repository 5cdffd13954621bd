import { randomBytes } from 'node:crypto'
import { open, rename, unlink } from 'node:fs/promises'

/** Writes to a temporary file and renames it, so that no partial file is read, not even after a power failure, and an older mode does not stay. */
export async function replaceFile(file: string, content: string, mode: number): Promise<void> {
  await replaceFileIf(file, content, mode, async () => {})
}

/**
 * The same, if `check` of the temporary file resolves; otherwise the old file stays.
 *
 * @returns the result of `check`
 * @throws as `check`
 */
export async function replaceFileIf<T>(
  file: string,
  content: string,
  mode: number,
  check: (draft: string) => Promise<T>,
): Promise<T> {
  const draft = `${file}.${randomBytes(6).toString('hex')}.new`
  try {
    const handle = await open(draft, 'wx', mode)
    try {
      await handle.chmod(mode)
      await handle.writeFile(content)
      await handle.sync()
    } finally {
      await handle.close()
    }
    const result = await check(draft)
    await rename(draft, file)
    return result
  } catch (error) {
    await unlink(draft).catch(() => {})
    throw error
  }
}
