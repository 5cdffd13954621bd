import { accessSync, constants } from 'node:fs'
import { totalmem } from 'node:os'

/** Heap that V8 fills before its first full collection, in MiB, and the machine's memory for each MiB of it. */
const [initialHeap, memoryPerHeap] = [128, 16]

/** The versions of Node.js whose V8 counts the memory of buffers towards its limit for full collections, and has the flags. */
const versions = ['24', '25', '26']

interface Restartable {
  /** Replaces the program of the process (Node.js 23.11). */
  execve?(file: string, args: readonly string[], env: NodeJS.ProcessEnv): void
}

/**
 * Starts this program again, in the same process, with V8's flags for many short-lived buffers. Does nothing where that was done, or is not
 * possible: before Node.js 24, which needs no flags, on Windows, in a worker, and in a child with a channel to its parent, which would be closed.
 *
 * As of V8 13, 64 MiB of buffers cause a full collection, however small the heap is. Reads of TLS connections and messages of the built-in broker are such buffers:
 * 1 KiB frames over TLS took 2.4 times the processor time (`docs/decisions/0016`). `v8.setFlagsFromString` is too late for the second flag.
 */
export function restartWithHeapFlags(): void {
  const { execve }: NodeJS.Process & Restartable = process
  const isSet = process.execArgv.some(flag => flag.startsWith('--initial-old-space-size'))
  const isNeeded = versions.includes(process.versions.node.split('.', 1)[0] ?? '')
  if (!execve || isSet || !isNeeded || process.connected) return
  const heap = Math.min(initialHeap, Math.floor(availableMemory() / memoryPerHeap / 2 ** 20))
  const flags = ['--external-memory-accounted-in-global-limit', `--initial-old-space-size=${heap}`]
  try {
    // `execve` ends the process where the system does not execute the file.
    accessSync(process.execPath, constants.X_OK)
    execve.call(
      process,
      process.execPath,
      [process.execPath, ...process.execArgv, ...flags, ...process.argv.slice(1)],
      process.env,
    )
  } catch {
    // The flags only save time.
  }
}

/** Memory of the machine, or of the container if that is less. */
function availableMemory(): number {
  const constrained = process.constrainedMemory()
  return constrained > 0 ? Math.min(totalmem(), constrained) : totalmem()
}
