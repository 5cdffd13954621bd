import { chmod, rename, writeFile } from 'node:fs/promises'

/** Writes to a temporary file and renames it, so that no partial file is read and an older mode does not stay. */
export async function replaceFile(file: string, content: string, mode: number): Promise<void> {
  const draft = `${file}.${process.pid}.new`
  await writeFile(draft, content, { mode })
  await chmod(draft, mode)
  await rename(draft, file)
}
