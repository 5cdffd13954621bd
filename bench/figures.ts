import type { Figure } from './cells.js'
import type { Run } from './measure.js'

interface FigureKind {
  readonly heading: string
  /** Undefined where the run does not tell. */
  of(run: Run): number | undefined
  readonly better: 'lower' | 'higher'
}

const megabyte = 1e6

/** User and system time of all of a system's processes, in seconds. */
export function processorSeconds(run: Run): { user: number; system: number } | undefined {
  const processes = run.load?.processes ?? []
  if (processes.length === 0) return undefined
  return {
    user: processes.reduce((sum, { user }) => sum + user, 0),
    system: processes.reduce((sum, { system }) => sum + system, 0),
  }
}

/** Microseconds of processor time per unit of work. */
function cpuPer(run: Run, unit: (load: NonNullable<Run['load']>) => number): number | undefined {
  const seconds = processorSeconds(run)
  if (!run.load || !seconds) return undefined
  return (1e6 * (seconds.user + seconds.system)) / unit(run.load)
}

/** How much more memory there was after what came before the measurement. */
function grownBytes({ processes }: NonNullable<Run['load']>): number {
  return processes.reduce((sum, { idleBytes }) => sum + idleBytes, 0)
}

/** How each figure is computed from a run, and how it is headed. */
export const figureKinds: Readonly<Record<Figure, FigureKind>> = {
  rate: { heading: 'per second', of: ({ load }) => load && load.messages / load.seconds, better: 'higher' },
  megabytes: { heading: 'MB/s', of: ({ load }) => load && load.bytes / megabyte / load.seconds, better: 'higher' },
  cpu: { heading: 'µs CPU each', of: run => cpuPer(run, load => load.messages), better: 'lower' },
  cpuPerMegabyte: { heading: 'µs CPU/MB', of: run => cpuPer(run, load => load.bytes / megabyte), better: 'lower' },
  p50: { heading: 'p50 µs', of: ({ load }) => load?.p50, better: 'lower' },
  p99: { heading: 'p99 µs', of: ({ load }) => load?.p99, better: 'lower' },
  longest: { heading: 'all µs', of: ({ load }) => load?.longest, better: 'lower' },
  resumed: { heading: 'resumed', of: ({ load }) => load?.resumed, better: 'higher' },
  leastServed: { heading: 'least served', of: ({ load }) => load?.leastServed, better: 'higher' },
  idleBytes: {
    heading: 'bytes/idle',
    of: ({ load, idle }) => (load && idle > 0 ? grownBytes(load) / idle : undefined),
    better: 'lower',
  },
  memory: {
    heading: 'MB in all',
    of: ({ load }) => load && load.processes.reduce((sum, { rss }) => sum + rss, 0) / megabyte,
    better: 'lower',
  },
  collections: { heading: 'full GCs', of: ({ collections }) => collections, better: 'lower' },
  readyCpu: { heading: 's CPU to ready', of: ({ readyCpu }) => readyCpu, better: 'lower' },
}

/** The middle of several rounds, and how far they lie apart. */
export interface Spread {
  readonly median: number
  /** Half of the distance between the largest and the smallest, in percent of the median. */
  readonly percent: number
  readonly values: readonly number[]
}

export function spreadOf(values: readonly number[]): Spread | undefined {
  const sorted = [...values].sort((a, b) => a - b)
  const low = sorted[Math.floor((sorted.length - 1) / 2)]
  const high = sorted[Math.ceil((sorted.length - 1) / 2)]
  const first = sorted[0]
  const last = sorted.at(-1)
  if (low === undefined || high === undefined || first === undefined || last === undefined) return undefined
  const median = (low + high) / 2
  return { median, percent: median === 0 ? 0 : (50 * (last - first)) / median, values }
}
