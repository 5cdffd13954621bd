import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Cell } from './cells.js'
import { type Child, freePort, processorTime, start } from './children.js'
import { loadProgram, pushProgram, upstreamProgram } from './native.js'
import type { Running, System } from './systems/system.js'

/** Directory, certificate and duration of a run. */
export interface Conditions {
  /** Each run gets a directory of its own in it. */
  readonly scratch: string
  /** PEM files. */
  readonly certificate: { readonly cert: string; readonly key: string }
  /** Both in seconds. */
  readonly warmup: number
  readonly seconds: number
}

/** The report of the load generator; times in microseconds, unless stated otherwise. */
export interface LoadReport {
  readonly seconds: number
  readonly messages: number
  readonly bytes: number
  readonly p50: number
  readonly p99: number
  readonly longest: number
  /** Share of the connections that resumed a TLS session. */
  readonly resumed: number
  /** Messages of the connection with the fewest, relative to the mean. */
  readonly leastServed: number
  readonly cipher: string
  /** The generator's own processor time per second. */
  readonly generator: number
  readonly processes: readonly { user: number; system: number; rss: number; idleBytes: number }[]
}

/** The result of one run of a system in a cell. */
export interface Run {
  /** Seconds of processor time from start to ready. */
  readonly readyCpu: number
  readonly load: LoadReport | undefined
  /** Full garbage collections since the start; undefined without a collector. */
  readonly collections: number | undefined
  /** Connections beside the busy ones. */
  readonly idle: number
}

/** Additional time for connecting, stopping and a slow machine, in seconds. */
const slack = 40

/**
 * Starts the upstream and the system, runs the load generator, and stops all of them.
 *
 * @param rate rounds per second to pace the load at, over all connections
 */
export async function measure(cell: Cell, system: System, conditions: Conditions, rate?: number): Promise<Run> {
  const { scratch, certificate } = conditions
  const directory = mkdtempSync(join(scratch, 'run-'))
  const upstream = cell.upstream === 'none' ? undefined : start(upstreamProgram, [cell.upstream])
  let running: Running | undefined
  try {
    const upstreamPort = upstream === undefined ? 0 : Number(await upstream.firstLine)
    const speaksMqtt = cell.upstream === 'none' || cell.upstream === 'connack'
    const restart = isReconnect(cell) && { restart: { port: await freePort() } }
    const setup = { directory, tls: cell.tls, certificate, upstreamPort, speaksMqtt, ...restart }
    running = await system.start(setup)
    const readyCpu = sumOf(running.pids.map(processorTime))
    const startAgain = async (): Promise<Running> => {
      await running?.stop()
      running = await system.start(setup)
      return running
    }
    const load =
      cell.load === undefined ? undefined : await runLoad(cell, system, running, conditions, rate, startAgain)
    const collections = load && (await running.fullCollections?.())
    return { readyCpu, load, collections, idle: Number(cell.load?.['idle'] ?? 0) }
  } finally {
    await running?.stop()
    await upstream?.stop()
    rmSync(directory, { recursive: true, force: true })
  }
}

async function runLoad(
  cell: Cell,
  system: System,
  running: Running,
  { warmup: usual, seconds }: Conditions,
  rate: number | undefined,
  startAgain: () => Promise<Running>,
): Promise<LoadReport> {
  const warmup = Math.max(usual, cell.warmup ?? 0)
  const options = {
    ...cell.load,
    port: running.port,
    ...(cell.push === undefined ? { framing: framing(cell, system) } : pushOptions(cell.push, system)),
    warmup,
    seconds,
    limit: Math.ceil(warmup + seconds + slack),
    ...(rate === undefined ? {} : { rate }),
  }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
  const load = start(cell.push === undefined ? loadProgram : pushProgram, [
    ...args,
    ...(cell.tls ? ['--tls'] : []),
    ...(cell.resumes ? ['--resume'] : []),
    ...(isReconnect(cell) ? [] : running.pids.flatMap(pid => ['--pid', String(pid)])),
  ])
  try {
    const report = isReconnect(cell) ? await reconnect(load, startAgain) : parseReport(await load.firstLine)
    if (report.messages === 0) throw new Error('no work was done')
    return report
  } finally {
    await load.stop()
  }
}

function isReconnect({ load }: Cell): boolean {
  return load?.['mode'] === 'reconnect'
}

function parseReport(line: string): LoadReport {
  return JSON.parse(line)
}

/** Starts the system again when all clients have been connected, and lets them come back. */
async function reconnect(load: Child, startAgain: () => Promise<Running>): Promise<LoadReport> {
  await load.firstLine
  const { pids } = await startAgain()
  const before = pids.map(processorTime)
  const line = load.nextLine()
  process.kill(load.pid, 'SIGUSR1')
  const report = parseReport(await line)
  const processes = pids.map(processorTime).map(({ user, system }, index) => ({
    user: user - (before[index]?.user ?? 0),
    system: system - (before[index]?.system ?? 0),
    rss: 0,
    idleBytes: 0,
  }))
  return { ...report, processes }
}

function sumOf(times: readonly { user: number; system: number }[]): number {
  return times.reduce((sum, { user, system }) => sum + user + system, 0)
}

function pushOptions(mode: NonNullable<Cell['push']>, { name, push }: System): Record<string, string> {
  if (push === undefined) throw new Error(`${name} does not push`)
  const subscribe = mode === 'poll' ? push.poll : push.stream
  return { mode, publish: push.publish, subscribe, cursor: push.cursor }
}

/** Behind a relay, an upstream that echoes may send frames; one that creates messages sends none. */
function framing(cell: Cell, system: System): string {
  if (system.speaks === 'websocket') return 'websocket'
  return cell.upstream === 'echo' ? 'unmasked' : 'none'
}
