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
  /** The first line that it prints; rejects when it ends before. */
  readonly firstLine: Promise<string>
  /** All that it has printed on standard error, its end at least. */
  readonly errors: () => string
  readonly hasEnded: () => boolean
  /** Ends it, if it has not ended by itself: SIGTERM, and SIGKILL two seconds later. */
  stop(): Promise<void>
}

const running = new Set<ChildProcess>()
/** From SIGTERM to SIGKILL, in milliseconds. What is measured is over by then; nobody is there to be told goodbye. */
const patience = 2000
const keptErrors = 4000

/**
 * Makes a directory for everything that is written. Whatever way this process ends, neither that nor anything that it
 * has started stays behind. Call once.
 */
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
  const firstLine = new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', resolve)
    void ended.then(() => reject(new Error(`${command} ended: ${errors.trim()}`)))
  })
  // Not everybody waits for a line.
  firstLine.catch(() => {})
  const hasEnded = (): boolean => !running.has(child)
  return {
    pid: child.pid ?? 0,
    firstLine,
    errors: () => errors.trim(),
    hasEnded,
    async stop() {
      if (hasEnded()) return
      child.kill('SIGTERM')
      const overdue = setTimeout(() => child.kill('SIGKILL'), patience)
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

/** Resolves when `port` of loopback accepts; rejects when the process ends before, or after ten seconds. */
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
export function processorTime(pid: number): number {
  const ticksPerSecond = 100 // sysconf(_SC_CLK_TCK) on every Linux that Node runs on
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** The processes that `pid` has started. */
export function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
}
