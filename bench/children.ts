import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'

/** A process that the benchmark has started. */
export interface Child {
  readonly pid: number
  /** The first line of its output; rejects if it ends without one. */
  readonly firstLine: Promise<string>
  /** The next line of its output, from now on; rejects if it ends without one. */
  nextLine(): Promise<string>
  /** The end of its standard error. */
  readonly errors: () => string
  readonly hasEnded: () => boolean
  /** Stops it with SIGTERM, and with SIGKILL two seconds later. */
  stop(): Promise<void>
}

const running = new Set<ChildProcess>()
/** Time from SIGTERM to SIGKILL, in milliseconds. The measurement is over by then, so no connection needs a clean end. */
const stopTimeout = 2000
const keptErrors = 4000

/** Creates a directory for all files of the benchmark. It is removed, and all children are killed, however this process ends. Call once. */
export function openScratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'mqway-bench-'))
  process.on('exit', () => {
    for (const child of running) child.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(130))
  return directory
}

export function start(command: string, args: readonly string[], cwd?: string): Child {
  // Node started by npm inherits variables that would configure mqway; and Debian keeps some peers off a user's path.
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('MQWAY_'))
  const env = { ...Object.fromEntries(inherited), PATH: `${process.env['PATH']}:/usr/sbin` }
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env, ...(cwd === undefined ? {} : { cwd }) })
  running.add(child)
  let errors = ''
  child.stderr.on('data', chunk => {
    errors = (errors + chunk).slice(-keptErrors)
  })
  const ended = new Promise<void>(resolve => {
    child.once('error', error => {
      errors += error.message
      resolve()
    })
    child.once('close', () => resolve())
  }).then(() => {
    running.delete(child)
  })
  const printed = createInterface({ input: child.stdout })
  const nextLine = (): Promise<string> =>
    new Promise((resolve, reject) => {
      printed.once('line', resolve)
      void ended.then(() => reject(new Error(`${command} ended: ${errors.trim()}`)))
    })
  const firstLine = nextLine()
  // Some callers do not wait for it.
  firstLine.catch(() => {})
  const hasEnded = (): boolean => !running.has(child)
  return {
    pid: child.pid ?? 0,
    firstLine,
    nextLine,
    errors: () => errors.trim(),
    hasEnded,
    async stop() {
      if (hasEnded()) return
      child.kill('SIGTERM')
      const overdue = setTimeout(() => child.kill('SIGKILL'), stopTimeout)
      await ended
      clearTimeout(overdue)
    },
  }
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

/** Resolves when `port` on loopback accepts connections; rejects if the process ends first, or after ten seconds. */
export async function accepts(port: number, child: Child): Promise<void> {
  const deadline = performance.now() + 10_000
  while (performance.now() < deadline) {
    if (child.hasEnded()) throw new Error(`it ended while starting: ${child.errors()}`)
    const socket = connect({ host: '127.0.0.1', port })
    try {
      await once(socket, 'connect')
      return
    } catch {
      await delay(5)
    } finally {
      socket.destroy()
    }
  }
  throw new Error('it does not accept connections')
}

/** Seconds of processor time that a process has used, from `/proc/<pid>/stat` (proc(5): utime and stime). */
export function processorTime(pid: number): { user: number; system: number } {
  const ticksPerSecond = 100 // sysconf(_SC_CLK_TCK) on every Linux that Node runs on
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { user: Number(fields[11]) / ticksPerSecond, system: Number(fields[12]) / ticksPerSecond }
}

/** The child processes of `pid`. */
export function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
}
