import { join } from 'node:path'
import type { AedesPublishPacket, Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import type LevelPersistence from 'aedes-persistence-level/asyncPersistence.js'
import type { Level as LevelDatabase } from 'level'
import { decode } from 'msgpack-lite'
import { BatchedLevel, type Change, type KeyRange } from '../../storage/batched-level.js'
import { openDatabase, startError } from '../../storage/open-level.js'
import { IdentifierSet } from './identifier-set.js'
import { LevelQueues, rangeOf, storedBytes } from './level-queues.js'
import type { RetainedStorage, StorageBackend, StoredSession, StoredSubscriptions } from './storage-backend.js'

/** Storage in a LevelDB. */
export interface LevelBackend extends StorageBackend {
  /** Number of this run: how many times the directory has been opened. */
  readonly run: number
  close(): Promise<void>
}

/** Key prefix of subscriptions in `aedes-persistence-level`. */
const subscriptionsKey = 'subscriptions'
/** Keys removed in one write. */
const removalBatch = 1000

/** Keys of mqway beside those of `aedes-persistence-level`. */
const runKey = 'mqway:run'
const sessionKind = 'mqway:session'
const sessionKey = (id: string): string => `${sessionKind}:${encodeURIComponent(id)}`

/**
 * Opens or creates the database in `<data>/broker`.
 *
 * A finished write survives the end of the process, but not a loss of power, which would take an fsync for each message.
 *
 * @throws {StartError} when another process has it open, or it cannot be read or created
 */
export async function openLevel(data: string): Promise<LevelBackend> {
  const directory = join(data, 'broker')
  // Not needed without durable state.
  const { default: Persistence } = await import('aedes-persistence-level/asyncPersistence.js')
  const database = await openDatabase(directory).catch(error => {
    throw startError({ directory, holds: "the broker's state" }, error)
  })
  const run = Number((await database.get(runKey)) ?? 0) + 1
  await database.put(runKey, String(run))
  const batched = new BatchedLevel(database)
  const incoming = new Map<string, IdentifierSet>()
  const sessions = await readSessions(database, incoming)
  const withIncoming = new Set(incoming.keys())
  const persistence = new Persistence(persistenceView(batched, { withIncoming }))
  const queues = new LevelQueues(batched)
  return {
    persistence,
    subscriptions: storedSubscriptions(() => new Persistence(persistenceView(batched, { subscriptions: true }))),
    queues,
    retained: new LevelRetained(batched, persistence, Persistence),
    incoming,
    sessions,
    run,
    keepSession: (id, session) => batched.put(sessionKey(id), sessionRecord(session)),
    allSubscriptions: () => allSubscriptions(database),
    removeSessions: ids => removeSessions(database, ids),
    removeSession: async id => {
      await Promise.all([
        batched.clear(rangeOf(`${subscriptionsKey}:${encodeURIComponent(id)}`)),
        persistence.cleanIncoming({ id }),
        queues.remove(id),
      ])
      await batched.del(sessionKey(id))
    },
    close: () => batched.close(),
  }
}

interface ViewOptions {
  /** Whether it reads subscriptions, of which `LevelPersistence` would load all into a trie at its start. */
  readonly subscriptions?: boolean
  /** Client ids with stored packet identifiers of QoS 2: only theirs are removed, because each removal is a write. */
  readonly withIncoming?: Set<string>
}

/** The database as `LevelPersistence` uses it. */
function persistenceView(database: BatchedLevel, { subscriptions = false, withIncoming }: ViewOptions): object {
  return {
    get: (key: string) => database.get(key, { valueEncoding: 'buffer' }),
    put: (key: string, value: Buffer) => {
      if (key.startsWith('incoming:')) withIncoming?.add(idOf(key, 'incoming'))
      return database.put(key, value)
    },
    del: (key: string) => database.del(key),
    batch: (changes: readonly Change[]) => database.write(changes),
    clear: async (range: KeyRange) => {
      if (!withIncoming || withIncoming.delete(idOf(range.gte, 'incoming'))) await database.clear(range)
    },
    values: (range: KeyRange) => (!subscriptions && range.gte === `${subscriptionsKey}:` ? [] : database.values(range)),
  }
}

/** @param open creates a persistence for one call, so that its trie is garbage-collected */
function storedSubscriptions(open: () => Persistence): StoredSubscriptions {
  return {
    add: (session, subscriptions) => open().addSubscriptions(session, subscriptions),
    remove: (session, filters) => open().removeSubscriptions(session, filters),
    clear: session => open().cleanSubscriptions(session),
    read: session => open().subscriptionsByClient(session),
  }
}

/** Format of a session record: `<seen>`, `<seen>:<owner>` or `<seen>@<network>:<owner>`. */
function sessionRecord({ seen, owner, network }: Pick<StoredSession, 'seen' | 'owner' | 'network'>): string {
  const from = network === undefined ? '' : `@${encodeURIComponent(network)}`
  return `${seen}${from}${owner === undefined ? '' : `:${owner}`}`
}

/** A record without a time, of an earlier version, counts as seen now. */
function parseRecord(id: string, record: string | undefined): Pick<StoredSession, 'id' | 'seen' | 'owner' | 'network'> {
  const [, seen, network, owner] = /^(\d+)(?:@([^:]*))?(?::(.*))?$/s.exec(record ?? '') ?? []
  return {
    id,
    owner,
    network: network === undefined ? undefined : decodeURIComponent(network),
    seen: Number(seen ?? Date.now()),
  }
}

/** The subscriptions of all sessions; keys are in order of client id. */
async function* allSubscriptions(database: LevelDatabase): AsyncGenerator<readonly [string, readonly Subscription[]]> {
  let current = ''
  let subscriptions: Subscription[] = []
  const values = database.values<string, Buffer>({ ...rangeOf(subscriptionsKey), valueEncoding: 'buffer' })
  for await (const value of values) {
    const { clientId, ...subscription } = decode<Subscription & { clientId: string }>(value)
    if (clientId !== current) {
      if (subscriptions.length > 0) yield [current, subscriptions]
      current = clientId
      subscriptions = []
    }
    subscriptions.push(subscription)
  }
  if (subscriptions.length > 0) yield [current, subscriptions]
}

/** Removes all keys of these sessions, in batches; the records last, so that an interrupted start continues. */
async function removeSessions(database: LevelDatabase, ids: ReadonlySet<string>): Promise<void> {
  for (const kind of [subscriptionsKey, 'outgoing', 'outgoing-id', 'incoming', sessionKind]) {
    let keys: string[] = []
    const removeKeys = (): Promise<void> => database.batch(keys.map(key => ({ type: 'del', key })))
    for await (const key of database.keys(rangeOf(kind))) {
      if (!ids.has(idOf(key, kind))) continue
      if (keys.push(key) < removalBatch) continue
      await removeKeys()
      keys = []
    }
    await removeKeys()
  }
}

/** Client id of a key. */
function idOf(key: string, kind: string): string {
  return decodeURIComponent(key.slice(kind.length + 1).split(':', 1)[0] ?? '')
}

/**
 * The stored sessions; reads one key and one message at a time.
 *
 * @param incoming gets the packet identifiers of QoS 2 of each session
 */
async function readSessions(database: LevelDatabase, incoming: Map<string, IdentifierSet>): Promise<StoredSession[]> {
  const sessions = new Map<string, { queued: number; bytes: number; record?: string }>()
  const sessionOf = (key: string, kind: string): { queued: number; bytes: number; record?: string } => {
    const id = idOf(key, kind)
    const session = sessions.get(id) ?? { queued: 0, bytes: 0 }
    sessions.set(id, session)
    return session
  }
  for await (const [key, record] of database.iterator(rangeOf(sessionKind))) {
    sessionOf(key, sessionKind).record = record
  }
  for await (const key of database.keys(rangeOf(subscriptionsKey))) sessionOf(key, subscriptionsKey)
  const messages = database.iterator<string, Buffer>({ ...rangeOf('outgoing'), valueEncoding: 'buffer' })
  for await (const [key, value] of messages) {
    const session = sessionOf(key, 'outgoing')
    session.queued++
    session.bytes += storedBytes(value)
  }
  for await (const key of database.keys(rangeOf('incoming'))) {
    const id = idOf(key, 'incoming')
    if (!sessions.has(id)) {
      // A client without a session was connected when the last run was killed.
      await database.del(key)
      continue
    }
    const identifiers = incoming.get(id) ?? new IdentifierSet()
    incoming.set(id, identifiers)
    identifiers.add(Number(key.slice(key.lastIndexOf(':') + 1)))
  }
  return Array.from(sessions, ([id, { record, ...queue }]) => ({ ...parseRecord(id, record), ...queue }))
}

/** Key prefix of retained messages in `aedes-persistence-level`. */
const retainedPrefix = 'retained:'

/** Retained messages on disk, in the format of `aedes-persistence-level`. */
class LevelRetained implements RetainedStorage {
  readonly isMemory = false
  readonly #database: BatchedLevel
  readonly #persistence: LevelPersistence
  readonly #Persistence: typeof LevelPersistence

  constructor(database: BatchedLevel, persistence: LevelPersistence, Persistence: typeof LevelPersistence) {
    this.#database = database
    this.#persistence = persistence
    this.#Persistence = Persistence
  }

  async *load(): AsyncGenerator<AedesPublishPacket> {
    yield* this.#persistence.createRetainedStream('#')
  }

  put(packet: AedesPublishPacket): Promise<void> {
    return this.#persistence.storeRetained(packet)
  }

  remove(topic: string): Promise<void> {
    return this.#database.del(retainedPrefix + topic)
  }

  async read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]> {
    const keys = topics.map(topic => retainedPrefix + topic)
    const values = await this.#database.getMany(keys)
    const packets: AedesPublishPacket[] = []
    // The library decodes the values, from a view of the database that has no others.
    const view = new this.#Persistence({ values: () => present(values) })
    for await (const packet of view.createRetainedStream('#')) packets.push(packet)
    return packets
  }
}

async function* present(values: readonly (Buffer | undefined)[]): AsyncGenerator<Buffer> {
  for (const value of values) if (value) yield value
}
