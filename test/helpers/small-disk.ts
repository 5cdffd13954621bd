import { execFileSync } from 'node:child_process'
import { appendFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/** A file system of its own, in memory; needs root. */
export interface SmallDisk {
  readonly directory: string
  /** Takes all space that is left. */
  fill(): void
  /** Gives that space back. */
  free(): void
}

/** Mounts a file system of some mebibytes; unmounted after the test, when everything on it is closed. */
export async function mountSmallDisk(mebibytes: number): Promise<SmallDisk> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-disk-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', directory])
  onTestFinished(async () => {
    execFileSync('umount', [directory])
    await rm(directory, { recursive: true })
  })
  const filler = join(directory, 'filler')
  return {
    directory,
    fill: () => {
      writeFileSync(filler, '')
      // Whole pages of tmpfs.
      for (const size of [1024 ** 2, 4096]) fillWith(filler, Buffer.alloc(size))
    },
    free: () => rmSync(filler),
  }
}

function fillWith(file: string, bytes: Buffer): void {
  try {
    for (;;) appendFileSync(file, bytes)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error
  }
}
