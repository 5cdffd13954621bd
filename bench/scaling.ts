import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

/** Measured figures; `docs/scaling.md` says where. */
export interface Measured {
  /** Processor time of a gateway for one event to one subscriber, in µs. */
  readonly deliveryMicros: number
  /** Processor time of Redis and of each gateway for one event, in µs. */
  readonly redisMicros: number
  readonly gatewayMicros: number
  /** Memory of an idle event stream over HTTP, and what TLS adds, in bytes. */
  readonly streamBytes: number
  readonly tlsBytes: number
  /** Memory of a listener of presence in each gateway, and in Redis, in bytes. */
  readonly listenerBytes: number
  readonly listenerRedisBytes: number
  /** Memory of a gateway without clients, and of its copy of the journal, in bytes. */
  readonly baseBytes: number
  readonly journalBytes: number
  /** Streams of one process: the most that were measured. */
  readonly streams: number
  /** Listeners of presence that a gateway has at most. */
  readonly listeners: number
}

export const measured: Measured = {
  ...{ deliveryMicros: 9.7, redisMicros: 200, gatewayMicros: 380 },
  ...{ streamBytes: 10_000, tlsBytes: 24_000, listenerBytes: 450, listenerRedisBytes: 381 },
  ...{ baseBytes: 80e6, journalBytes: 128 * 1024 ** 2, streams: 10_000, listeners: 500_000 },
}

/** What is published. */
export interface Traffic {
  readonly name: string
  /** Events in a second. */
  readonly events: number
  /** The part of all browsers that an event goes to. */
  readonly share: number
  /** Bytes of an event on the wire. */
  readonly bytes: number
}

export const traffics: readonly Traffic[] = [
  { name: 'quiet: each browser gets one event a minute', events: 100, share: 1 / 6000, bytes: 400 },
  { name: 'news: 100 events a second, each to 1 %', events: 100, share: 0.01, bytes: 400 },
  { name: 'all: one event a second to everybody', events: 1, share: 1, bytes: 400 },
]

export interface Plan {
  /** Gateway processes that carry all, and one more for the loss of one. */
  readonly gateways: number
  /** Processors in use, of all gateways and of Redis. */
  readonly cores: number
  readonly redisCores: number
  /** Memory of all gateways and of Redis, in bytes. */
  readonly memory: number
  readonly redisMemory: number
  /** To the browsers, and from Redis to the gateways, in bytes a second. */
  readonly network: number
  readonly redisNetwork: number
  readonly firstLimit: string
}

/** The part of a processor that a gateway should use: the rest is for bursts and reconnecting browsers. */
const load = 0.6

/** Computes what `browsers` event streams over TLS with presence need. */
export function plan(browsers: number, traffic: Traffic, figures: Measured = measured): Plan {
  const deliveries = browsers * traffic.share * traffic.events
  const deliveryCores = (deliveries * figures.deliveryMicros) / 1e6
  const eventCores = (traffic.events * figures.gatewayMicros) / 1e6
  const byProcessor = deliveryCores / Math.max(load - eventCores, 0.01)
  const byStreams = browsers / figures.streams
  const gateways = Math.ceil(Math.max(byProcessor, byStreams, 1)) + 1
  const listeners = Math.min(browsers, figures.listeners)
  const perGateway = figures.baseBytes + figures.journalBytes + listeners * figures.listenerBytes
  return {
    gateways,
    cores: deliveryCores + gateways * eventCores,
    redisCores: (traffic.events * figures.redisMicros) / 1e6,
    memory: gateways * perGateway + browsers * (figures.streamBytes + figures.tlsBytes),
    redisMemory: 1.5 * figures.journalBytes + listeners * figures.listenerRedisBytes,
    network: deliveries * traffic.bytes,
    redisNetwork: traffic.events * traffic.bytes * gateways,
    firstLimit:
      browsers > figures.listeners
        ? 'listeners of presence'
        : byProcessor > byStreams
          ? 'processors of the gateways'
          : 'streams of one process',
  }
}

export const sizes: readonly number[] = [10_000, 100_000, 1_000_000]

/** The table of `docs/scaling.md`. */
export function table(figures: Measured = measured): string {
  const rows = traffics.flatMap(traffic =>
    sizes.map(browsers => {
      const it = plan(browsers, traffic, figures)
      const cells = [
        ...[traffic.name, browsers.toLocaleString('en')],
        ...[String(it.gateways), it.cores.toFixed(1), gigabytes(it.memory)],
        ...[it.redisCores.toFixed(2), gigabytes(it.redisMemory)],
        ...[megabits(it.network), megabits(it.redisNetwork), it.firstLimit],
      ]
      return `| ${cells.join(' | ')} |`
    }),
  )
  return [
    '| traffic | browsers | gateways | their processors | their memory | processors of Redis | memory of Redis | to browsers | from Redis | first limit |',
    '|---|---|---|---|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`
const megabits = (bytes: number): string => `${((bytes * 8) / 1e6).toFixed(bytes > 1e6 ? 0 : 2)} Mbit/s`

/** The processor times of a result of `npm run bench -- --only redis-sse-1`, whose processes are the gateway, Redis and mosquitto. */
export function figuresOf(result: string): Pick<Measured, 'deliveryMicros' | 'redisMicros'> {
  const { cells } = JSON.parse(result) as {
    readonly cells: readonly { readonly name: string; readonly systems: Readonly<Record<string, readonly Round[]>> }[]
  }
  const systems = cells.find(({ name }) => name === 'redis-sse-1')?.systems ?? {}
  const rounds = Object.entries(systems).find(([name]) => name.includes('(Redis)'))?.[1] ?? []
  const [gateway, redis] = [0, 1].map(index => median(rounds.map(({ load }) => microsOf(load.processes[index]))))
  const messages = median(rounds.map(({ load }) => load.messages))
  const events = median(rounds.map(({ load }) => load.rounds))
  if (!gateway || !redis || !messages || !events) throw new Error('the result has no cell redis-sse-1 with Redis')
  return { deliveryMicros: gateway / messages, redisMicros: redis / events }
}

interface Round {
  readonly load: {
    readonly messages: number
    readonly rounds: number
    readonly processes: readonly { readonly user: number; readonly system: number }[]
  }
}

const microsOf = (process: { readonly user: number; readonly system: number } | undefined): number =>
  process ? (process.user + process.system) * 1e6 : 0
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [file] = process.argv.slice(2)
  const figures = file === undefined ? measured : { ...measured, ...figuresOf(readFileSync(file, 'utf8')) }
  process.stdout.write(`${JSON.stringify(figures, undefined, 2)}\n\n${table(figures)}\n`)
}
