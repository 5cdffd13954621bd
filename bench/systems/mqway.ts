import { writeFileSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { get as httpsGet } from 'node:https'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { accepts, childrenOf, freePort, start } from '../children.js'
import { mqwayProgram, node } from '../places.js'
import { missingOf, type Running, type Setup, type System } from './system.js'

/** mqway as a tunnel. */
export const mqway: System = {
  name: 'mqway',
  speaks: 'websocket',
  hasTls: true,
  missing: () => missingOf(mqwayProgram),
  start: setup => {
    const { upstreamPort, upstreamSocket, restart, directory } = setup
    const broker = upstreamSocket === undefined ? `mqtt://127.0.0.1:${upstreamPort}` : `unix:${upstreamSocket}`
    return startMqway(setup, { broker, ...(restart && { data: join(directory, 'data') }) })
  },
}

/** The same with two processes. */
export const mqwayWorkers: System = {
  ...mqway,
  name: 'mqway (2 workers)',
  start: setup => startMqway(setup, { broker: `mqtt://127.0.0.1:${setup.upstreamPort}`, workers: 2 }),
}

/** mqway with the broker inside, and nothing but that. */
export const mqwayEmbedded: System = {
  ...mqway,
  name: 'mqway embedded',
  start: setup => startMqway(setup, { push: 'off' }),
}

const publish = '/v1/publish?topic=bench/topic'
// As a client that comes back does; one that does not tell its name is somebody else each time.
const poll = '/v1/poll?topic=bench/topic&device=device-%ld'
const stream = '/v1/events?topic=bench/topic'

/** mqway as it is started without options: messages of the broker inside are kept on disk, and pushed. */
export const mqwayPush: System = {
  ...mqway,
  name: 'mqway push',
  hasTls: false,
  // The bare payload, as Nchan has it.
  push: { publish, stream: `${stream}&enveloped=false`, poll, cursor: 'body' },
  start: setup => startMqway(setup, { data: join(setup.directory, 'data') }),
}

/** The same, with messages in memory, as Nchan has them. */
export const mqwayPushMemory: System = {
  ...mqwayPush,
  name: 'mqway push (memory)',
  start: setup => startMqway(setup, {}),
}

/** The same as `mqwayPush`, with events in JSON, which have their topic and time. */
export const mqwayPushJson: System = {
  ...mqwayPush,
  name: 'mqway push (JSON)',
  push: { publish, stream, poll, cursor: 'body' },
}

/** Before another broker, with the journal in memory: beside the one with the journal in Redis. */
export const mqwayBeforeBroker: System = {
  ...mqwayPush,
  name: 'mqway push (memory)',
  start: setup => startMqway(setup, { broker: `mqtt://127.0.0.1:${setup.upstreamPort}`, push: { topics: ['#'] } }),
}

/** Before another broker, with the journal in Redis; with two workers, each is a gateway with a journal of its own. */
export function mqwayWithRedis(workers: 1 | 2): System {
  return {
    ...mqwayPush,
    name: `mqway push (Redis${workers === 1 ? '' : ` and ${workers} workers`})`,
    start: setup =>
      startMqway(setup, {
        broker: `mqtt://127.0.0.1:${setup.upstreamPort}`,
        push: { topics: ['#'], journal: { redis: { url: setup.redisUrl ?? '' } }, presence: { messages: false } },
        workers,
      }),
  }
}

/** Topics of the cell `replay`. */
export const replayTopics = 10
export const replaySize = 256

/** `mqwayPush` with so many messages in its journal that nobody has got yet: each newcomer wants the last of one topic. */
export function mqwayWithJournal(kept: number): System {
  return {
    ...mqwayPush,
    name: `mqway push (${kept} messages)`,
    push: { publish, stream: '/v1/events?topic=bench/%ld&enveloped=false&last=1000', poll, cursor: 'body' },
    async start(setup) {
      const data = join(setup.directory, 'data')
      const counts = [kept, replayTopics, replaySize].map(String)
      const filling = start(node, [fillProgram, mqwayProgram, join(data, 'journal'), ...counts])
      await filling.firstLine
      await filling.stop()
      return startMqway(setup, { data })
    },
  }
}

const fillProgram = fileURLToPath(new URL('fill-journal.js', import.meta.url))

interface Variant {
  readonly broker?: string
  readonly data?: string
  readonly push?: 'off' | object
  readonly workers?: number
}

async function startMqway(
  { directory, tls, certificate, speaksMqtt, restart }: Setup,
  { broker = 'embedded', data = 'none', push, workers = 1 }: Variant,
): Promise<Running> {
  const port = restart?.port ?? (await freePort())
  const config = {
    http: { port: tls ? 'off' : port },
    https: tls ? { port, ...certificate } : { port: 'off' },
    mqtt: { port: 'off' },
    broker,
    // Where bytes are echoed there is no CONNECT to look at. Nobody else pings, so that nobody does.
    tunnels: [{ path: '/mqtt', inspectConnect: speaksMqtt, pingInterval: 'off' }],
    data,
    workers,
    ...(push === undefined ? {} : { push }),
    limits: {
      connections: 100_000,
      connectionsPerAddress: 100_000,
      upgradesPerSecond: 'off',
      requestsPerSecond: 'off',
    },
    log: { level: 'warn', format: 'json' },
  }
  const file = join(directory, 'mqway.yaml')
  writeFileSync(file, JSON.stringify(config)) // which is YAML
  // BENCH_NODE_FLAGS: to take a profile, as in --cpu-prof.
  const flags = (process.env['BENCH_NODE_FLAGS'] ?? '').split(' ').filter(flag => flag !== '')
  const child = start(node, [...flags, mqwayProgram, 'serve', '--config', file], directory)
  await accepts(port, child)
  const read = (name: string) => metric(`${tls ? 'https' : 'http'}://127.0.0.1:${port}/metrics`, name)
  // The port is open when the first worker is ready.
  while (workers > 1 && (await read('mqway_workers_missing')) !== 0) await delay(5)
  const pids = workers > 1 ? [child.pid, ...childrenOf(child.pid)] : [child.pid]
  const collections = async (): Promise<number> => (await read('nodejs_gc_duration_seconds_count{kind="major"}')) ?? 0
  return { port, pids, fullCollections: collections, stop: () => child.stop() }
}

/** A value of the metrics at `url`. */
async function metric(url: string, name: string): Promise<number | undefined> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = url.startsWith('https') ? httpsGet(url, { rejectUnauthorized: false }, resolve) : get(url, resolve)
    request.on('error', reject)
  })
  const lines = (await text(response)).split('\n')
  const value = lines.find(line => line.startsWith(`${name} `))?.slice(name.length)
  return value === undefined ? undefined : Number(value)
}
