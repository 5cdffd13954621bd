import { randomBytes } from 'node:crypto'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import type { TimeSlicer } from '../base/time-slicer.js'
import { leaveScript, markScript, writeScript } from './gateway-map-scripts.js'
import { connectRedis, type Redis, reasonOf, redisOptions } from './redis.js'
import { nameOf, type SharedRedis } from './shared-redis.js'

/** An entry of a map; without a value, it is deleted. Neither key nor value is empty. */
export type MapChange = readonly [key: string, value: string | undefined]

/** Gets the maps of all gateways. Changes have the same order and positions at every gateway. */
export interface MapsFollower {
  /** All entries of this gateway's map, to be written again; it may change meanwhile. */
  entries(): Iterable<MapChange>
  /** An entry has changed in the map of a gateway, perhaps of this one. */
  onChange(gateway: string, change: MapChange, position: number): void
  /** A gateway has ended, or could not be reached for the time of its lease. */
  onLeft(gateway: string, position: number): Promise<void>
  /** All changes up to a position have been given. */
  onReached(position: number): void
  /** The maps of all gateways that are registered, after changes may have been missed. */
  onLoaded(maps: ReadonlyMap<string, ReadonlyMap<string, string>>, position: number): Promise<void>
  /** The gateway that leads has set a mark. */
  onMark(mark: string): void
}

export interface GatewayMapsOptions {
  readonly shared: SharedRedis
  /** Of the keys in Redis, after the prefix. */
  readonly name: string
  /** The key of the lease of the gateway that may set marks. */
  readonly leaderLease: string
  readonly follower: MapsFollower
  readonly slicer: TimeSlicer
  readonly log: Logger
  /** How long a gateway's map remains after its last sign of life, in milliseconds. */
  readonly lease: number
}

/** Interval of batches, and of attempts after an error, in milliseconds. */
const [batchInterval, retryInterval] = [20, 200]
/** Renewals in the time of a lease. */
const renewals = 5
/** Changes and characters of one batch: some milliseconds of each gateway's time. */
const [maxBatch, maxBatchLength] = [500, 32 * 1024]
/** Changes and characters that wait for Redis; beyond, the whole map is written when it is back. */
const [maxQueued, maxQueuedLength] = [100_000, 32 * 1024 ** 2]
/** How long a read of the stream waits, and its time limit, in milliseconds. */
const [blockTime, followTimeout] = [1000, 4000]
/** Batches of one read of the stream, and entries of one read of a map. */
const [maxBatches, scanCount] = [5, 500]
/** Other gateways whose lease is compared at once. */
const maxCompared = 100
/** Attempts to read all maps while they change. */
const maxAttempts = 10

/**
 * Opens them.
 *
 * @throws {StartError} if Redis cannot be reached or used
 */
export async function openGatewayMaps(options: GatewayMapsOptions): Promise<GatewayMaps> {
  const { shared, log } = options
  const name = nameOf(shared.config)
  const redis = await connectRedis(await redisOptions(shared.config), name, log, followTimeout)
  const maps = new GatewayMaps(options, redis)
  try {
    await maps.start()
    return maps
  } catch (cause) {
    redis.disconnect()
    throw new StartError(`push.journal: Redis at ${name} cannot be used: ${reasonOf(cause)}`, { cause })
  }
}

/**
 * One map of short strings for each of several gateways, which all gateways know.
 *
 * Redis has a hash for each gateway, and a stream of all changes, from which every gateway follows; one that has missed some reads the hashes again.
 * A gateway's map remains as long as its lease, which it renews; another gateway then removes it. Where Redis has lost a gateway's
 * changes, or its lease has ended, the gateway writes its map again under another name, and renews the lease of the earlier one until it has:
 * so nothing seems to leave and return.
 */
export class GatewayMaps {
  readonly #options: GatewayMapsOptions
  readonly #redis: Redis
  readonly #follow: Redis
  readonly #base: string
  #id = ''
  /** The name of this gateway under which its whole map was written last, until that is so again. */
  #former = ''
  /** The last batch that Redis has, for certain. */
  #written = 0
  /** A batch that Redis may have. */
  #batch: string[] | undefined
  #queue: MapChange[] = []
  #next = 0
  #queuedLength = 0
  /** What remains of the whole map, while it is written. */
  #rest: Iterator<MapChange> | undefined
  #wroteAt = Number.NEGATIVE_INFINITY
  #failure: string | undefined
  /** Since when this gateway has renewed its lease without a failure. */
  #healthySince = 0
  /** Gateways with a map, perhaps also earlier names of this one. */
  readonly #gateways = new Set<string>()
  /** Where the next comparison of leases begins. */
  #compared = 0
  #position = 0
  #mustLoad = true
  #closed = false
  #wakeWriter: () => void = ignore
  #wakeFollower: () => void = ignore
  #writing: Promise<void> = Promise.resolve()
  #following: Promise<void> = Promise.resolve()

  constructor(options: GatewayMapsOptions, follow: Redis) {
    this.#options = options
    this.#redis = options.shared.redis
    this.#follow = follow
    this.#base = options.shared.config.prefix + options.name
    follow.on('close', () => {
      this.#mustLoad = true
    })
    follow.on('ready', () => this.#wakeFollower())
  }

  /** The name of this gateway; another one after its map was lost. */
  get id(): string {
    return this.#id
  }

  /** Gateways with a map. */
  get size(): number {
    return this.#gateways.size
  }

  /** Reads all maps, and registers this gateway. */
  async start(): Promise<void> {
    this.#begin()
    await this.#write()
    await this.#load()
    this.#writing = this.#writeAll()
    this.#following = this.#followAll()
  }

  /** Changes this gateway's map. */
  set(key: string, value: string | undefined): void {
    const change = [key, value] as const
    if (this.#closed) return
    if (this.#queue.length - this.#next >= maxQueued || this.#queuedLength > maxQueuedLength) return this.#begin()
    this.#queue.push(change)
    this.#queuedLength += lengthOf(change)
    this.#wakeWriter()
  }

  /**
   * Sets a mark, if this gateway leads.
   *
   * @param token of its lease
   * @returns the mark's position; `undefined` if another gateway leads
   */
  async mark(token: string, mark: string): Promise<number | undefined> {
    const keys = [this.#base, this.#options.leaderLease]
    return Number(await markScript.run(this.#redis, keys, [token, mark, Date.now()])) || undefined
  }

  /** Ends. @param lease how long this gateway's map remains, in milliseconds */
  async close(lease: number): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#wakeWriter()
    this.#wakeFollower()
    this.#follow.disconnect()
    await Promise.all([this.#writing, this.#following])
    try {
      for (let left = maxQueued / maxBatch; left > 0 && this.#hasMore(); left--) await this.#write()
      await leaveScript.run(this.#redis, [this.#base], [this.#id, Math.max(1, lease)])
    } catch {
      // Its lease ends by itself.
    }
  }

  // Writing

  /** Begins to write the whole map, under a new name. */
  #begin(): void {
    this.#former ||= this.#id
    this.#id = randomBytes(9).toString('base64url')
    this.#written = 0
    this.#batch = undefined
    this.#queue = []
    this.#next = this.#queuedLength = 0
    this.#rest = this.#options.follower.entries()[Symbol.iterator]()
    this.#healthySince = performance.now()
  }

  async #writeAll(): Promise<void> {
    while (!this.#closed) {
      const renewInterval = this.#options.lease / renewals
      const interval = this.#failure !== undefined ? retryInterval : this.#hasMore() ? batchInterval : renewInterval
      const wait = this.#wroteAt + interval - performance.now()
      if (wait > 0) await this.#sleep(wait)
      else await this.#write().catch(error => this.#failed(error))
    }
  }

  #sleep(milliseconds: number): Promise<void> {
    return new Promise(resolve => {
      const wake = (): void => {
        clearTimeout(timer)
        this.#wakeWriter = ignore
        resolve()
      }
      const timer = setTimeout(wake, milliseconds)
      // An interval that has begun is not shortened.
      if (milliseconds > batchInterval) this.#wakeWriter = wake
    })
  }

  #hasMore(): boolean {
    return this.#batch !== undefined || this.#next < this.#queue.length || this.#rest !== undefined
  }

  #failed(error: unknown): void {
    const failure = reasonOf(error)
    if (this.#failure !== failure) {
      this.#options.log.warn({ err: error }, `failed to tell the other gateways the ${this.#options.name}: ${failure}`)
    }
    this.#failure = failure
    this.#healthySince = performance.now()
  }

  /** Writes a batch, renews the lease, and removes the maps of gateways whose lease has ended. */
  async #write(): Promise<void> {
    this.#wroteAt = performance.now()
    const id = this.#id
    this.#batch ??= this.#nextBatch()
    const number = this.#written + (this.#batch === undefined ? 0 : 1)
    const { lease } = this.#options
    // After an interruption of Redis, the others have as much time as any gateway.
    const others = this.#wroteAt - this.#healthySince > lease ? this.#someOthers() : []
    const args = [id, number, lease, Date.now(), this.#former, others.length, ...others, ...(this.#batch ?? [])]
    const outcome = String(await writeScript.run(this.#redis, [this.#base], args))
    this.#failure = undefined
    if (id !== this.#id) return
    if (outcome === 'lost') {
      this.#begin()
      this.#mustLoad = true
      return
    }
    if (outcome === 'late') this.#healthySince = performance.now()
    this.#written = number
    this.#batch = undefined
    if (this.#rest === undefined) this.#former = ''
  }

  /** Other gateways, in turn. */
  #someOthers(): string[] {
    const others = [...this.#gateways].filter(each => each !== this.#id)
    if (this.#compared >= others.length) this.#compared = 0
    const start = this.#compared
    this.#compared += maxCompared
    return others.slice(start, this.#compared)
  }

  /** `undefined` for nothing to write. The first one registers this gateway. */
  #nextBatch(): string[] | undefined {
    const batch: string[] = []
    for (let length = 0; batch.length < 2 * maxBatch && length < maxBatchLength; ) {
      const change = this.#nextChange()
      if (!change) break
      const [key, value = ''] = change
      batch.push(key, value)
      length += key.length + value.length
    }
    return batch.length === 0 && this.#written > 0 ? undefined : batch
  }

  /** Changes come first, so that what is read of the whole map is always newer. */
  #nextChange(): MapChange | undefined {
    const change = this.#queue[this.#next]
    if (change) {
      this.#next++
      this.#queuedLength -= lengthOf(change)
      return change
    }
    this.#queue = []
    this.#next = 0
    const rest = this.#rest?.next()
    if (rest?.done === false) return rest.value
    this.#rest = undefined
    return undefined
  }

  // Following

  async #followAll(): Promise<void> {
    while (!this.#closed) {
      try {
        if (this.#follow.status !== 'ready') await this.#connected()
        else if (this.#mustLoad) await this.#load()
        else await this.#followOnce()
      } catch (error) {
        if (this.#closed) return
        this.#options.log.debug({ err: error }, `failed to follow the ${this.#options.name} of other gateways`)
        this.#mustLoad = true
        // A late answer could be taken for another one.
        if (this.#follow.status === 'ready') this.#follow.disconnect(true)
        // Until then, commands may fail at once.
        await new Promise(resolve => setTimeout(resolve, retryInterval))
      }
    }
  }

  #connected(): Promise<void> {
    return new Promise(resolve => {
      this.#wakeFollower = () => {
        this.#wakeFollower = ignore
        resolve()
      }
    })
  }

  async #followOnce(): Promise<void> {
    const args = ['COUNT', maxBatches, 'BLOCK', blockTime, 'STREAMS', this.#base, `${this.#position}-0`]
    const reply = (await this.#follow.call('XREAD', ...args)) as [string, RawBatch[]][] | null
    await this.#options.slicer.next()
    for (const [id, [kind, subject = '', ...fields]] of reply?.[0]?.[1] ?? []) {
      const position = Number.parseInt(id, 10)
      if (this.#closed || this.#mustLoad) return
      if (position !== this.#position + 1) {
        this.#mustLoad = true
        return
      }
      await this.#apply(kind, subject, fields, position)
      this.#position = position
      this.#options.follower.onReached(position)
    }
  }

  async #apply(kind: string | undefined, subject: string, fields: readonly string[], position: number): Promise<void> {
    const { follower, slicer } = this.#options
    if (kind === 'mark') return follower.onMark(subject)
    if (kind === 'left') {
      this.#gateways.delete(subject)
      return follower.onLeft(subject, position)
    }
    this.#gateways.add(subject)
    for (const change of changesOf(fields)) {
      if (slicer.isOver) await slicer.next()
      follower.onChange(subject, change, position)
    }
  }

  /** Reads all maps. */
  async #load(): Promise<void> {
    this.#mustLoad = false
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const start = Number((await this.#follow.get(`${this.#base}:head`)) ?? 0)
      const maps = new Map<string, Map<string, string>>()
      for (const id of await this.#follow.smembers(`${this.#base}:gateways`)) maps.set(id, await this.#readMap(id))
      const position = await this.#catchUp(maps, start)
      if (position === undefined) continue
      for (const id of maps.keys()) this.#gateways.add(id)
      await this.#options.follower.onLoaded(maps, position)
      this.#position = position
      this.#options.follower.onReached(position)
      return
    }
    throw new Error(`the ${this.#options.name} in Redis keeps changing while it is read`)
  }

  async #readMap(id: string): Promise<Map<string, string>> {
    const map = new Map<string, string>()
    let cursor = '0'
    do {
      const [next, fields] = await this.#follow.hscan(`${this.#base}:of:${id}`, cursor, 'COUNT', scanCount)
      await this.#options.slicer.next()
      for (let at = 0; at < fields.length; at += 2) map.set(fields[at] ?? '', fields[at + 1] ?? '')
      cursor = next
    } while (cursor !== '0')
    map.delete(batchField)
    return map
  }

  /** Applies what has changed since `start`, because a map is not read at one moment. @returns `undefined` if that is no longer there */
  async #catchUp(maps: Map<string, Map<string, string>>, start: number): Promise<number | undefined> {
    let position = start
    for (;;) {
      const batches = await this.#follow.xrange(this.#base, `${position + 1}-0`, '+', 'COUNT', maxBatches)
      await this.#options.slicer.next()
      for (const [id, [kind, subject = '', ...fields]] of batches) {
        if (Number.parseInt(id, 10) !== ++position) return undefined
        if (kind === 'left') maps.delete(subject)
        if (kind !== 'of') continue
        const map = maps.get(subject) ?? new Map<string, string>()
        maps.set(subject, map)
        for (const [key, value] of changesOf(fields)) {
          if (value === undefined) map.delete(key)
          else map.set(key, value)
        }
      }
      if (batches.length < maxBatches) return position
    }
  }
}

type RawBatch = [id: string, fields: string[]]

/** The field of a hash with the number of the last batch. */
const batchField = '#'

function* changesOf(fields: readonly string[]): Generator<MapChange, void, void> {
  for (let at = 0; at < fields.length; at += 2) yield [fields[at] ?? '', fields[at + 1] || undefined]
}

function lengthOf([key, value = '']: MapChange): number {
  return key.length + value.length
}

function ignore(): void {}
