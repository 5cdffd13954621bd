import { websocketStream, wsStream } from './systems/bridges.js'
import { direct, haproxy } from './systems/haproxy.js'
import { lighttpd } from './systems/lighttpd.js'
import { beforeMosquitto, mosquitto } from './systems/mosquitto.js'
import {
  mqway,
  mqwayBeforeBroker,
  mqwayEmbedded,
  mqwayPush,
  mqwayPushJson,
  mqwayPushMemory,
  mqwayWithJournal,
  mqwayWithRedis,
  mqwayWorkers,
  replaySize,
  replayTopics,
} from './systems/mqway.js'
import { nchan, nchanWorkers } from './systems/nchan.js'
import { withRedis } from './systems/redis.js'
import type { System } from './systems/system.js'

/** What a run can tell; `results.ts` says how each is computed. */
export type Figure =
  | 'rate'
  | 'megabytes'
  | 'cpu'
  | 'cpuPerMegabyte'
  | 'p50'
  | 'p99'
  | 'longest'
  | 'resumed'
  | 'leastServed'
  | 'idleBytes'
  | 'memory'
  | 'readyCpu'
  | 'collections'

/** One measurement: a load, the systems that bear it, and what is shown of it. */
export interface Cell {
  readonly name: string
  readonly title: string
  readonly tls: boolean
  /** Whether clients resume their TLS sessions. */
  readonly resumes?: boolean
  readonly systems: readonly System[]
  /** Whose figures are the ratios' denominators. */
  readonly peer: System
  /** What the systems lead to; `none` for brokers, and those that are put before one. */
  readonly upstream: 'echo' | 'source' | 'sink' | 'connack' | 'none'
  /** Set where native/push.c is the load generator and not native/load.c: how messages come out. */
  readonly push?: 'stream' | 'poll' | 'replay'
  /** The load generator's options; none where only the start is measured. */
  readonly load: Readonly<Record<string, string | number>> | undefined
  /** The first is what counts. */
  readonly figures: readonly Figure[]
  /** The least time before the measured one, in seconds, where the usual one does not make the system warm. */
  readonly warmup?: number
  /** Paced at half of what the peer reached in this cell of the same round. */
  readonly pacedBy?: string
}

const tunnels: readonly System[] = [mqway, lighttpd, websocketStream, wsStream, haproxy, direct]
const inFrontOfMosquitto = beforeMosquitto(mqway)
const lighttpdMosquitto = beforeMosquitto(lighttpd)
const overUnixSocket = beforeMosquitto(mqway, 'unix')
const brokers: readonly System[] = [mqwayEmbedded, inFrontOfMosquitto, lighttpdMosquitto, overUnixSocket, mosquitto]

const pushers: readonly System[] = [mqwayPush, mqwayPushMemory, mqwayPushJson, nchan, nchanWorkers]

const memoryPush = beforeMosquitto(mqwayBeforeBroker)
const [redisPush, redisPushWorkers] = [mqwayWithRedis(1), mqwayWithRedis(2)].map(each =>
  beforeMosquitto(withRedis(each)),
) as [System, System]

/** Messages in the journals that are replayed from. */
const journals = [100_000, 1_000_000]

/** Every system, in the order of the tables. */
export const systems: readonly System[] = [
  ...tunnels,
  ...brokers,
  ...pushers,
  mqwayWorkers,
  memoryPush,
  redisPush,
  redisPushWorkers,
  ...journals.map(mqwayWithJournal),
]

/** How much smaller the cells of `--quick` are. */
interface Scale {
  readonly idle: (tls: boolean) => number
  /** A new connection takes so much code that V8 compiles it for seconds: with 0.7 s before, a third more was measured. */
  readonly connectWarmup: number
  readonly reconnecting: number
  readonly pushWarmup: number
  readonly pushers: readonly System[]
  readonly subscribers: number
  readonly idleSubscribers: number
  readonly journals: readonly number[]
}
const full: Scale = {
  idle: tls => (tls ? 2000 : 5000),
  connectWarmup: 4,
  reconnecting: 2000,
  pushWarmup: 2,
  pushers,
  subscribers: 1000,
  idleSubscribers: 10_000,
  journals,
}
const small: Scale = {
  idle: () => 200,
  connectWarmup: 0,
  reconnecting: 100,
  pushWarmup: 0,
  pushers: [mqwayPush, nchan],
  subscribers: 50,
  idleSubscribers: 200,
  journals: [10_000],
}

type Tunnel = Pick<Cell, 'name' | 'title' | 'upstream' | 'load' | 'figures'> &
  Partial<Pick<Cell, 'pacedBy' | 'systems' | 'warmup'>>

/** The tunnel's cells, each once without and once with TLS. */
function tunnelCells({ idle, connectWarmup }: Scale, tls: boolean): Cell[] {
  const pingPong = { mode: 'echo', connections: 50, size: 64, batch: 1 }
  const cells: Tunnel[] = [
    {
      name: 'flood',
      title: '20 connections, frames of 64 B, 64 KiB in flight each',
      upstream: 'echo',
      load: { mode: 'echo', connections: 20, size: 64, batch: 1024 },
      figures: ['cpu', 'rate', 'p99', 'leastServed'],
    },
    {
      name: '1k',
      title: '20 connections, frames of 1 KiB, 64 KiB in flight each',
      upstream: 'echo',
      load: { mode: 'echo', connections: 20, size: 1024, batch: 64 },
      figures: ['cpuPerMegabyte', 'megabytes', 'p99'],
    },
    {
      name: '64k',
      title: '4 connections, frames of 64 KiB, one in flight each',
      upstream: 'echo',
      load: { mode: 'echo', connections: 4, size: 65_536, batch: 1 },
      figures: ['cpuPerMegabyte', 'megabytes', 'p99'],
    },
    {
      name: 'ping-pong',
      title: '50 connections, one frame of 64 B in flight each',
      upstream: 'echo',
      load: pingPong,
      figures: ['cpu', 'rate', 'p50', 'p99'],
    },
    {
      name: 'paced',
      title: 'ping-pong at half of the peer’s rate',
      upstream: 'echo',
      load: pingPong,
      figures: ['p99', 'p50', 'cpu', 'rate'],
      pacedBy: 'ping-pong',
    },
    {
      name: 'down',
      title: 'one way to the client, 4 connections',
      upstream: 'source',
      load: { mode: 'down', connections: 4 },
      figures: ['cpuPerMegabyte', 'megabytes'],
    },
    {
      name: 'up',
      title: 'one way to the upstream, 4 connections, frames of 1 KiB',
      upstream: 'sink',
      load: { mode: 'up', connections: 4, size: 1024 },
      figures: ['cpuPerMegabyte', 'megabytes'],
    },
    {
      name: 'connect',
      title: 'connections, 32 at once: handshake, CONNECT, CONNACK, DISCONNECT, close',
      upstream: 'connack',
      load: { mode: 'connect', connections: 32 },
      figures: ['rate', 'cpu', 'p50', 'p99'],
      warmup: connectWarmup,
    },
    {
      name: 'idle',
      title: `${idle(tls)} idle connections, and ping-pong beside them`,
      upstream: 'echo',
      load: { ...pingPong, idle: idle(tls) },
      figures: ['idleBytes', 'cpu', 'rate', 'p99'],
      systems: tunnels.filter(system => system !== direct),
    },
    {
      name: 'start',
      title: 'from start to ready',
      upstream: 'echo',
      load: undefined,
      figures: ['readyCpu'],
      systems: [mqway, mqwayEmbedded, lighttpd],
    },
  ]
  return cells.map(cell => ({
    peer: lighttpd,
    ...cell,
    tls,
    name: tls ? `${cell.name}-tls` : cell.name,
    title: tls ? `${cell.title}, TLS` : cell.title,
    systems: (cell.systems ?? tunnels).filter(system => !tls || system.hasTls),
    ...(cell.pacedBy === undefined || !tls ? {} : { pacedBy: `${cell.pacedBy}-tls` }),
  }))
}

/** TLS sessions that are resumed, by their tickets. */
function resumptionCells({ connectWarmup, reconnecting }: Scale): Cell[] {
  const common = { tls: true, systems: [mqway, lighttpd], peer: lighttpd, upstream: 'connack' } as const
  const storm = { mode: 'reconnect', connections: reconnecting }
  const title = `${reconnecting} clients come back at once after a restart, TLS`
  const figures = ['rate', 'cpu', 'p50', 'p99', 'longest', 'resumed'] as const
  return [
    {
      ...common,
      name: 'connect-tls-resumed',
      resumes: true,
      title: 'connections, 32 at once, as in connect-tls, but each resumes the session of the one before it',
      load: { mode: 'connect', connections: 32 },
      figures: ['rate', 'cpu', 'p50', 'p99', 'resumed'],
      warmup: connectWarmup,
    },
    {
      ...common,
      name: 'reconnect-tls',
      title: `${title}, and resume their sessions`,
      resumes: true,
      load: storm,
      figures,
    },
    { ...common, name: 'reconnect-tls-full', title: `${title}, with full handshakes`, load: storm, figures },
  ]
}

/** Clients of MQTT 3.1.1. */
function brokerCells({ idle }: Scale): Cell[] {
  const common = { tls: false, systems: brokers, peer: mosquitto, upstream: 'none' } as const
  const fanOut = (subscribers: number, burst: number, size: number): Cell => ({
    ...common,
    name: `fan-out-${subscribers}-${burst}-${size}`,
    title: `one publisher, ${subscribers} subscribers, bursts of ${burst}, ${size} B, QoS 0`,
    load: { mode: 'fanout', connections: subscribers, batch: burst, size },
    figures: ['cpu', 'rate', 'p50', 'p99'],
  })
  const sizes = [64, 1024]
  const bursts = [1, 20]
  return [
    ...[100, 1000].flatMap(count => sizes.flatMap(size => bursts.map(burst => fanOut(count, burst, size)))),
    {
      ...common,
      name: 'qos1',
      title: '10 publishers at QoS 1, 64 B, one message in flight each',
      load: { mode: 'qos1', connections: 10, size: 64, batch: 1 },
      figures: ['p50', 'p99', 'cpu', 'rate'],
    },
    {
      ...common,
      name: 'mqtt-idle',
      title: `${idle(false)} idle clients, and 10 publishers at QoS 1 beside them`,
      load: { mode: 'qos1', connections: 10, size: 64, batch: 1, idle: idle(false) },
      figures: ['idleBytes', 'cpu', 'p99'],
      systems: [mqwayEmbedded, mosquitto],
    },
  ]
}

/** The same with clients of MQTT 5, on brokers alone. */
function mqtt5Cells(scale: Scale): Cell[] {
  return brokerCells(scale).map(cell => ({
    ...cell,
    name: cell.name.replace(/^(mqtt-)?/, 'mqtt5-'),
    title: `MQTT 5: ${cell.title}`,
    systems: [mqwayEmbedded, mosquitto],
    load: { ...cell.load, version: 5 },
  }))
}

/** Messages that are published over HTTP, and come out as Server-Sent Events or answers to long-polls. */
function pushCells({ subscribers, idleSubscribers, pushWarmup, pushers, journals }: Scale): Cell[] {
  const common = { tls: false, upstream: 'none', peer: nchan } as const
  const size = 256
  const fanOut = (push: 'stream' | 'poll', burst: number): Cell => ({
    ...common,
    name: `${push === 'poll' ? 'long-poll' : 'sse'}-${burst}`,
    title: `${push === 'poll' ? 'long-poll' : 'SSE'}, ${subscribers} subscribers, bursts of ${burst}, ${size} B`,
    systems:
      push === 'poll'
        ? pushers.filter(({ name }) => name !== mqwayPushJson.name && name !== nchanWorkers.name)
        : pushers,
    push,
    load: { connections: subscribers, batch: burst, size },
    warmup: pushWarmup,
    figures: ['cpu', 'rate', 'p50', 'p99'],
  })
  const journal = (burst: number): Cell => ({
    ...common,
    name: `journal-${burst}`,
    title: `one publisher, 100 subscribers over /mqtt, bursts of ${burst}, 64 B, QoS 0, with and without the journal`,
    systems: [mqwayPush, mqwayPushMemory, mqwayEmbedded],
    peer: mqwayEmbedded,
    load: { mode: 'fanout', connections: 100, batch: burst, size: 64 },
    figures: ['cpu', 'rate', 'p50', 'p99'],
  })
  const replay = (kept: number): Cell => {
    const system = mqwayWithJournal(kept)
    return {
      ...common,
      name: `replay-${kept}`,
      title: `newcomers who want the last 1000 of ${kept} messages on ${replayTopics} topics, each of one: to the first of them`,
      systems: [system],
      peer: system,
      push: 'replay',
      load: { kept, topics: replayTopics, size: replaySize },
      figures: ['p50', 'p99', 'memory'],
    }
  }
  return [
    ...[1, 20].map(burst => fanOut('stream', burst)),
    ...[1, 20].map(burst => fanOut('poll', burst)),
    {
      ...common,
      name: 'sse-idle',
      title: `${idleSubscribers} idle subscribers (SSE), and then one message after the other to all of them`,
      systems: [mqwayPush, mqwayPushJson, nchan],
      push: 'stream',
      load: { idle: idleSubscribers, size },
      figures: ['idleBytes', 'cpu', 'p99'],
    },
    ...[1, 20].map(journal),
    ...journals.map(replay),
  ]
}

/** Two workers, beside one process. */
function workerCells(scale: Scale): Cell[] {
  const tunnel = ['flood', '1k', 'ping-pong', 'connect', 'flood-tls', 'connect-tls']
  const push = ['sse-1', 'sse-20']
  const all = [...tunnelCells(scale, false), ...tunnelCells(scale, true), ...pushCells(scale)]
  const cellsOf = (names: readonly string[], systems: readonly [System, System]): Cell[] =>
    all
      .filter(({ name }) => names.includes(name))
      .map(cell => ({ ...cell, name: `workers-${cell.name}`, systems, peer: systems[0] }))
  return [...cellsOf(tunnel, [mqway, mqwayWorkers]), ...cellsOf(push, [redisPush, redisPushWorkers])]
}

/** The journal in Redis, beside that in memory; both before mosquitto. */
function redisCells(scale: Scale): Cell[] {
  return pushCells(scale)
    .filter(({ name }) => name === 'sse-1' || name === 'sse-20')
    .map(cell => ({ ...cell, name: `redis-${cell.name}`, systems: [memoryPush, redisPush], peer: memoryPush }))
}

export const fullCells: readonly Cell[] = [
  ...tunnelCells(full, false),
  ...tunnelCells(full, true),
  ...resumptionCells(full),
  ...brokerCells(full),
  ...mqtt5Cells(full),
  ...pushCells(full),
  ...workerCells(full),
  ...redisCells(full),
]

const quickNames = [
  ...['flood', 'connect', 'idle', 'flood-tls', 'fan-out-100-20-64', 'qos1', 'mqtt5-qos1'],
  ...['reconnect-tls', 'sse-20', 'long-poll-1', 'replay-10000'],
]
/** Those that are no peers are shown to work once. */
const others: readonly System[] = [...tunnels.filter(it => it !== mqway && it !== lighttpd), overUnixSocket]
const shownIn: readonly string[] = ['flood', 'fan-out-100-20-64']
export const quickCells: readonly Cell[] = [
  ...tunnelCells(small, false),
  ...tunnelCells(small, true),
  ...resumptionCells(small),
  ...brokerCells(small),
  ...mqtt5Cells(small),
  ...pushCells(small),
]
  .filter(cell => quickNames.includes(cell.name))
  .map(cell =>
    shownIn.includes(cell.name) ? cell : { ...cell, systems: cell.systems.filter(it => !others.includes(it)) },
  )

/** What is to be reached, as ratios in one run. */
export interface Target {
  readonly cell: string
  readonly figure: Figure
  readonly system: System
  /** Undefined: the figure itself, not a ratio. */
  readonly against: System | undefined
  /** The cell of `against`; the same by default. */
  readonly itsCell?: string
  readonly reach: number
}

const bar = (cell: string, figure: Figure, reach: number): Target => ({
  cell,
  figure,
  system: mqway,
  against: lighttpd,
  reach,
})

const pushed = (cell: string, figure: Figure, reach: number): Target => ({
  ...bar(cell, figure, reach),
  system: mqwayPush,
  against: nchan,
})

export const targets: readonly Target[] = [
  bar('flood', 'cpu', 0.6),
  bar('1k', 'cpuPerMegabyte', 0.3),
  bar('64k', 'cpuPerMegabyte', 0.3),
  bar('flood-tls', 'cpu', 0.85),
  bar('1k-tls', 'cpuPerMegabyte', 0.6),
  bar('64k-tls', 'cpuPerMegabyte', 0.6),
  bar('ping-pong', 'cpu', 1.5),
  bar('ping-pong-tls', 'cpu', 1.5),
  bar('flood', 'p99', 0.1),
  bar('flood-tls', 'p99', 0.1),
  bar('paced', 'p99', 1.2),
  bar('paced-tls', 'p99', 1.2),
  bar('idle', 'idleBytes', 0.8),
  bar('idle-tls', 'idleBytes', 1.2),
  bar('connect-tls', 'rate', 0.7),
  ...['1-64', '20-64', '1-1024', '20-1024'].flatMap(variant => [
    { ...bar(`fan-out-100-${variant}`, 'cpu', 2), system: mqwayEmbedded, against: mosquitto },
    { ...bar(`fan-out-100-${variant}`, 'cpu', 1), system: inFrontOfMosquitto, against: lighttpdMosquitto },
  ]),
  ...brokerCells(full).map(({ name, figures }): Target => {
    const [figure = 'cpu'] = name === 'qos1' ? ['cpu' as const] : figures
    const five = name.replace(/^(mqtt-)?/, 'mqtt5-')
    return { ...bar(five, figure, 1.15), system: mqwayEmbedded, against: mqwayEmbedded, itsCell: name }
  }),
  { ...bar('start', 'readyCpu', 0.5), against: undefined },
  ...['flood', 'ping-pong', 'flood-tls'].map(name => ({
    ...bar(`workers-${name}`, 'cpu', 1.15),
    system: mqwayWorkers,
    against: mqway,
  })),
  { ...bar('workers-1k', 'cpuPerMegabyte', 1.15), system: mqwayWorkers, against: mqway },
  ...['sse-1', 'sse-20'].map(name => ({
    ...bar(`workers-${name}`, 'cpu', 1.15),
    system: redisPushWorkers,
    against: redisPush,
  })),
  ...['sse-1', 'sse-20'].map(name => ({
    ...bar(`redis-${name}`, 'cpu', 1.1),
    system: redisPush,
    against: memoryPush,
  })),
  pushed('sse-1', 'cpu', 1),
  pushed('sse-20', 'cpu', 0.4),
  pushed('sse-1', 'p99', 1),
  pushed('sse-20', 'p99', 1),
  pushed('long-poll-1', 'cpu', 1.5),
  { ...pushed('sse-idle', 'idleBytes', 12_000), against: undefined },
  ...[1, 20].flatMap(burst => [
    { ...pushed(`journal-${burst}`, 'cpu', 1.2), against: mqwayEmbedded },
    { ...pushed(`journal-${burst}`, 'rate', 0.8), against: mqwayEmbedded },
  ]),
  { ...pushed('replay-1000000', 'p50', 50_000), system: mqwayWithJournal(1_000_000), against: undefined },
]
