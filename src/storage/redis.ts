import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { type Redis, Redis as RedisClient, type RedisOptions } from 'ioredis'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'

export type { Redis } from 'ioredis'

/** Where a Redis is. */
export interface RedisConfig {
  /** `redis://host:port/database`, `rediss:` for TLS, or `unix:/path?db=0`. */
  readonly url: string
  readonly username?: string | undefined
  readonly passwordFile?: string | undefined
  /** File with the certificates of authorities. */
  readonly ca?: string | undefined
  readonly prefix: string
  readonly sentinel?: { readonly name: string; readonly addresses: readonly string[] } | undefined
}

/** Time limit of the start for a connection, of one connection attempt, and of one command, in milliseconds. */
const [startTimeout, connectTimeout, commandTimeout] = [10_000, 3000, 3000]
/** How long a connection may take to close before it is destroyed, in milliseconds: its server may be gone. */
const disconnectTimeout = 500
/** Delay before the connection is tried again, at first and at most, in milliseconds. */
const [firstDelay, maxDelay] = [50, 1000]

/** Errors that do not end by waiting. */
const fatalPattern = /^(WRONGPASS|NOAUTH|NOPERM|ERR (AUTH|invalid (username|password)|Client sent AUTH|DB index))/

/** The same, of TLS. */
const certificatePattern = /certificate/i

type Argument = string | Buffer | number

/** A Lua script, which Redis knows by its digest. */
export class Script {
  readonly #source: string
  readonly #digest: string

  constructor(source: string) {
    this.#source = source
    this.#digest = createHash('sha1').update(source).digest('hex')
  }

  async run(redis: Redis, keys: readonly string[], args: readonly Argument[]): Promise<unknown> {
    const rest = [keys.length, ...keys, ...args]
    try {
      return await redis.callBuffer('EVALSHA', this.#digest, ...rest)
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
      return redis.callBuffer('EVAL', this.#source, ...rest)
    }
  }
}

/**
 * Options of connections to Redis. Nothing is sent again after a lost connection: the caller finds out what was executed.
 *
 * @throws {StartError} if a file cannot be read
 */
export async function redisOptions(config: RedisConfig): Promise<RedisOptions> {
  const { url, username, passwordFile, ca, sentinel } = config
  const { protocol, hostname, port, username: user, pathname, searchParams } = new URL(url)
  const password = passwordFile === undefined ? undefined : (await read(passwordFile, 'utf8')).trimEnd()
  const tls =
    protocol === 'rediss:' ? { servername: hostname, ...(ca !== undefined && { ca: await read(ca) }) } : undefined
  const isSocket = protocol === 'unix:'
  const db = Number((isSocket ? searchParams.get('db') : pathname.slice(1)) || 0)
  const login = username ?? decodeURIComponent(user)
  const common: RedisOptions = {
    ...(login !== '' && { username: login }),
    ...(password !== undefined && { password }),
    ...(tls && { tls }),
    ...{ db, connectTimeout, commandTimeout, disconnectTimeout, lazyConnect: true, connectionName: 'mqway' },
    ...{ enableOfflineQueue: false, autoResendUnfulfilledCommands: false, maxRetriesPerRequest: 0 },
    reconnectOnError: reconnectFromReplica(),
    retryStrategy: times => Math.min(firstDelay * 2 ** Math.min(times - 1, 10), maxDelay),
  }
  if (sentinel) {
    const sentinels = sentinel.addresses.map(address => {
      const { hostname: host, port: at } = new URL(`redis://${address}`)
      return { host: host.replace(/^\[|\]$/g, ''), port: Number(at || 26_379) }
    })
    return { ...common, sentinels, name: sentinel.name, sentinelRetryStrategy: () => maxDelay }
  }
  if (isSocket) return { ...common, path: decodeURIComponent(pathname) }
  return { ...common, host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 6379) }
}

/** Connects again, once a second, where the primary has become a replica and keeps its connections: the address may lead to another one now. */
function reconnectFromReplica(): (error: Error) => boolean {
  let last = Number.NEGATIVE_INFINITY
  return error => {
    const now = performance.now()
    if (!error.message.startsWith('READONLY') || now - last < maxDelay) return false
    last = now
    return true
  }
}

async function read(file: string): Promise<Buffer>
async function read(file: string, encoding: 'utf8'): Promise<string>
async function read(file: string, encoding?: 'utf8'): Promise<string | Buffer> {
  try {
    return await readFile(file, encoding)
  } catch (cause) {
    throw new StartError(`${file} of push.journal.redis cannot be read: ${reasonOf(cause)}`, { cause })
  }
}

/**
 * A connection that is given up once a command has no answer in time: a machine that is gone says nothing, and TCP would wait for it for a quarter of an
 * hour, while Sentinel has another primary.
 */
class Connection extends RedisClient {
  override sendCommand(...[command, stream]: Parameters<RedisClient['sendCommand']>): unknown {
    command.promise.catch((error: unknown) => {
      if (isTimeout(error) && this.status === 'ready') this.disconnect(true)
    })
    return super.sendCommand(command, stream)
  }
}

/**
 * Connects.
 *
 * @param timeout of one command; default: some seconds
 * @throws {StartError} if Redis cannot be reached, or refuses the login
 */
export async function connectRedis(
  options: RedisOptions,
  name: string,
  log: Logger,
  timeout = commandTimeout,
): Promise<Redis> {
  const redis = new Connection({ ...options, commandTimeout: timeout })
  let last: unknown
  let onFatal: (error: unknown) => void = ignore
  const fatal = new Promise<never>((_, reject) => {
    onFatal = reject
  })
  fatal.catch(ignore)
  redis.on('error', error => {
    last = error
    log.debug({ err: error }, 'a connection to Redis failed')
    if (isFatal(error)) onFatal(error)
  })
  const ready = new Promise<void>(resolve => redis.once('ready', resolve))
  redis.connect().catch(error => {
    last = error
    if (isFatal(error)) onFatal(error)
  })
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(last ?? new Error('no answer')), startTimeout)
  })
  try {
    await Promise.race([ready, fatal, late])
    return redis
  } catch (cause) {
    redis.disconnect()
    const login = fatalPattern.test(reasonOf(cause)) ? ': see username and passwordFile of push.journal.redis' : ''
    throw new StartError(`push.journal: no connection to Redis at ${name}: ${reasonOf(cause)}${login}`, { cause })
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Checks that Redis can keep a journal.
 *
 * @throws {StartError} if it is too old, or may evict keys
 */
export async function checkRedis(redis: Redis, name: string, log: Logger): Promise<void> {
  const info = String(await redis.call('INFO'))
  const field = (key: string): string => new RegExp(`^${key}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? ''
  const [major = 0, minor = 0] = field('redis_version').split('.').map(Number)
  if (major < 6 || (major === 6 && minor < 2)) {
    throw new StartError(`push.journal: Redis at ${name} has version ${field('redis_version')}; 6.2 or later is needed`)
  }
  const [policy, limit] = [field('maxmemory_policy'), field('maxmemory')]
  if (policy.startsWith('allkeys-') && limit !== '0') {
    throw new StartError(
      `push.journal: Redis at ${name} may evict the journal: set its maxmemory-policy to noeviction instead of ${policy}`,
    )
  }
  if (field('aof_enabled') === '0' && field('role') === 'master' && field('connected_slaves') === '0') {
    log.warn(`Redis at ${name} has no append-only file and no replica: after its end, every subscriber gets a gap`)
  }
}

function isFatal(error: unknown): boolean {
  const reason = reasonOf(error)
  return fatalPattern.test(reason) || certificatePattern.test(reason)
}

/** Whether a command had no answer in time. */
export function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === 'Command timed out'
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error)
}

function ignore(): void {}
