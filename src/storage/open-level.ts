import { mkdir, rename } from 'node:fs/promises'
import type { DatabaseOptions, Level } from 'level'
import { codeOf } from '../base/error-code.js'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'

/** A record is damaged or missing. */
export class DamagedRecord extends Error {
  override readonly name = 'DamagedRecord'
}

export interface DatabaseLocation {
  /** The directory, created if it does not exist. */
  readonly directory: string
  /** Name of its content in errors, such as `the journal`. */
  readonly holds: string
}

/**
 * LevelDB maps each open file of 2 MiB into memory, by default a thousand: a large database would be in memory as a whole.
 */
const maxOpenFiles = 64

/** Opens, or creates, a database. @throws {Error} LevelDB's error, or that of the file system */
export async function openDatabase<K = string, V = string>(
  directory: string,
  options: DatabaseOptions<K, V> = {},
): Promise<Level<K, V>> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  // Not needed without durable state.
  const { Level } = await import('level')
  // LevelDB compresses whole blocks: with Snappy, reading a small value beside one of 15 MiB costs some 10 ms of processor time, each time.
  const database = new Level<K, V>(directory, { compression: false, maxOpenFiles, ...options })
  await database.open()
  return database
}

/**
 * Calls `open`, which opens a database; if it is damaged, moves it aside and calls `open` again for an empty one.
 *
 * @param clock milliseconds since 1970
 * @throws {StartError} if another process has it open, or it cannot be opened
 */
export async function openOrReplace<T>(
  place: DatabaseLocation & { readonly log: Logger; readonly clock: () => number },
  open: () => Promise<T>,
): Promise<T> {
  const { directory, holds, log } = place
  try {
    try {
      return await open()
    } catch (error) {
      if (!isDamage(error)) throw error
      const aside = await moveAside(place)
      log.error(
        { err: error },
        `${holds}: moved the damaged database in ${directory} to ${aside}, and created an empty one`,
      )
      return await open()
    }
  } catch (error) {
    throw startError(place, error)
  }
}

/** Renames the directory of a database. @returns its new path */
export async function moveAside({
  directory,
  clock,
}: {
  readonly directory: string
  readonly clock: () => number
}): Promise<string> {
  // Windows allows no colon in a file name.
  const aside = `${directory}.damaged-${new Date(clock()).toISOString().replaceAll(':', '-')}`
  await rename(directory, aside)
  return aside
}

/** Whether an error, or one of its causes, means that a database is damaged. */
export function isDamage(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const code = codeOf(cause)
    if (cause instanceof DamagedRecord || code === 'LEVEL_CORRUPTION') return true
    // The directory exists, but one of its files is missing or too short.
    if (code === 'LEVEL_IO_ERROR' && /No such file|Invalid argument/.test(cause.message)) return true
  }
  return false
}

/** Returns a `StartError` with the reason why a database cannot be opened, and the remedy, in one line. */
export function startError({ directory, holds }: DatabaseLocation, error: unknown): StartError {
  const reason = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const message = reason instanceof Error ? reason.message : String(reason)
  const text =
    codeOf(reason) === 'LEVEL_LOCKED'
      ? `Another mqway uses ${directory}: end it, or give this one a directory of its own with --data DIR, or --data none`
      : `Cannot keep ${holds} in ${directory} (${message}): choose another directory with --data DIR, or --data none`
  return new StartError(text, { cause: error })
}
