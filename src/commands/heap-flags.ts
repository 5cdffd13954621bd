import { accessSync, constants } from 'node:fs'
import { totalmem } from 'node:os'

/** Heap that V8 fills before its first full collection, in MiB, and the machine's memory for each MiB of it. */
const [initialHeap, memoryPerHeap] = [128, 16]

/** V8's flag against counting the memory of buffers towards a limit of their own, by version of Node.js; 22 has none, and needs the larger heap alone. */
const accounting = ['--external-memory-accounted-in-global-limit']
const flagsByVersion: Readonly<Record<string, readonly string[]>> = {
  22: [],
  24: accounting,
  26: accounting,
}

interface Restartable {
  /** Replaces the program of the process (Node.js 22.15). */
  execve?(file: string, args: readonly string[], env: NodeJS.ProcessEnv): void
}

/**
 * Starts this program again, in the same process, with V8's flags for many short-lived buffers. Does nothing where that was done, or is not
 * possible: on Node.js 20, which needs no flags, on Windows, in a worker, and in a child with a channel to its parent, or with sockets of systemd, which would be closed.
 *
 * As of V8 13, 64 MiB of buffers cause a full collection, however small the heap is. Reads of TLS connections and messages of the built-in broker are such buffers:
 * 1 KiB frames over TLS took 2.4 times the processor time (`docs/decisions/0016`). `v8.setFlagsFromString` is too late for the second flag.
 */
export function restartWithHeapFlags(): void {
  const { execve }: NodeJS.Process & Restartable = process
  const isSet = process.execArgv.some(flag => flag.startsWith(heapFlagName))
  const ofVersion = flagsByVersion[process.versions.node.split('.', 1)[0] ?? '']
  if (!execve || isSet || !ofVersion || process.connected || process.env['LISTEN_FDS'] !== undefined) return
  const flags = [...ofVersion, heapFlag(1)]
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

/** The flags of this process for each of several workers, which share the machine's memory. */
export function workerFlags(workers: number): readonly string[] {
  return process.execArgv.map(flag => (flag.startsWith(heapFlagName) ? heapFlag(workers) : flag))
}

const heapFlagName = '--initial-old-space-size='

function heapFlag(processes: number): string {
  const heap = Math.min(initialHeap, Math.floor(availableMemory() / processes / memoryPerHeap / 2 ** 20))
  return `${heapFlagName}${heap}`
}

/** Memory of the machine, or of the container if that is less. */
function availableMemory(): number {
  const constrained = process.constrainedMemory()
  return constrained > 0 ? Math.min(totalmem(), constrained) : totalmem()
}
