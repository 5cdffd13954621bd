import type { Stats } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isInside, type PrivateFile, realPathOf } from '../config/private-files.js'

/** Milliseconds that the list of the program's files is cached. */
const maxAge = 1000

interface Identities {
  readonly readAt: number
  readonly paths: readonly string[]
  /** Device and inode of each file and directory. */
  readonly inodes: ReadonlySet<string>
  /** Those of the files in the directories; read for files with several names. */
  inner: Promise<ReadonlySet<string>> | undefined
}

/** Whether a file is one of the program's own; to be called with its path without symbolic links, and its `Stats`. */
export type PrivateFileGuard = (realPath: string, stats: Stats) => Promise<boolean>

/**
 * Recognizes the program's own files, and those in its directories, by whatever name they are requested: symbolic links are resolved before, hard links
 * are recognized by device and inode.
 */
export function createPrivateFileGuard(files: readonly PrivateFile[]): PrivateFileGuard {
  let current: Promise<Identities> | undefined
  const identities = async (): Promise<Identities> => {
    const last = await current
    if (last && performance.now() - last.readAt < maxAge) return last
    current = identify(files)
    return current
  }
  return async (realPath, stats) => {
    if (files.length === 0) return false
    const own = await identities()
    if (own.paths.some(path => isInside(realPath, path)) || own.inodes.has(inodeOf(stats))) return true
    if (stats.nlink < 2) return false
    own.inner ??= innerInodes(own.paths)
    return (await own.inner).has(inodeOf(stats))
  }
}

async function identify(files: readonly PrivateFile[]): Promise<Identities> {
  const readAt = performance.now()
  const paths = files.map(({ path }) => realPathOf(path))
  return { readAt, paths, inodes: new Set(await Promise.all(paths.map(inodeAt))), inner: undefined }
}

async function innerInodes(directories: readonly string[]): Promise<ReadonlySet<string>> {
  const inodes = new Set<string>()
  for (const directory of directories) {
    // It is no directory.
    const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])
    for (const entry of entries) {
      if (entry.isFile()) inodes.add(await inodeAt(join(entry.parentPath, entry.name)))
    }
  }
  return inodes
}

/** Empty if it does not exist. */
async function inodeAt(path: string): Promise<string> {
  const stats = await stat(path).catch(() => undefined)
  return stats ? inodeOf(stats) : ''
}

function inodeOf({ dev, ino }: Stats): string {
  return `${dev}:${ino}`
}
