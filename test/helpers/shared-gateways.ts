import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { freePorts } from './free-ports.js'
import { type Mosquitto, startMosquitto } from './mosquitto.js'
import { type ServingProgram, serving } from './program.js'
import { type RedisServer, startRedis } from './redis.js'

/** Gateways that share a broker and a Redis, each a process of its own. */
export interface SharedGateways {
  readonly redis: RedisServer
  readonly redisPort: number
  readonly broker: Mosquitto
  readonly directory: string
  /** @param push further options of `push`; `redisUrl` to lead it elsewhere */
  start(options?: {
    readonly push?: object
    readonly redisUrl?: string
    readonly more?: object
  }): Promise<ServingProgram>
}

/** Ends everything with the test. */
export async function startSharedGateways(): Promise<SharedGateways> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-shared-'))
  const [redisPort = 0] = await freePorts(1)
  // With `everysec`, it writes nothing while the disk is slow, and a killed one loses that.
  const redis = await startRedis([
    '--appendonly',
    'yes',
    '--appendfsync',
    'always',
    '--bind',
    '127.0.0.1',
    '--port',
    `${redisPort}`,
  ])
  const broker = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous true', 'max_queued_messages 100000'])
  const programs: ServingProgram[] = []
  onTestFinished(async () => {
    await Promise.all(programs.map(program => program.stop('SIGKILL')))
    await broker.stop()
    await redis.stop()
    await rm(directory, { recursive: true, force: true })
  })
  return {
    ...{ redis, redisPort, broker, directory },
    start: async ({ push = {}, redisUrl = redis.url, more = {} } = {}) => {
      const file = join(directory, `${programs.length}.json`)
      const config = {
        ...{ http: { port: 0 }, https: { port: 'off' }, mqtt: { port: 'off' }, data: 'none' },
        broker: `mqtt://127.0.0.1:${broker.port}`,
        push: { topics: ['#'], journal: { redis: { url: redisUrl } }, presence: { messages: false }, ...push },
        ...more,
      }
      await writeFile(file, JSON.stringify(config))
      const program = await serving(['--config', file], directory)
      programs.push(program)
      return program
    },
  }
}
