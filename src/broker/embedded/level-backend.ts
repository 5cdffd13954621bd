import { join } from 'node:path'
import type { Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import type { Level as LevelDatabase } from 'level'
import { decode } from 'msgpack-lite'
import { BatchedLevel, type Change, type KeyRange } from '../../storage/batched-level.js'
import { openDatabase, startError } from '../../storage/open-level.js'
import { LevelQueues, rangeOf, storedBytes } from './level-queues.js'
import { LevelRetained } from './level-retained.js'
import type { StorageBackend, StoredSession } from './storage-backend.js'
import type { StoredSubscriptions } from './stored-subscriptions.js'

/** What is opened on disk. */
export interface LevelBackend extends StorageBackend {
  /** How many times this directory has been opened before, this time included. */
  readonly run: number
  close(): Promise<void>
}

/** Under which `aedes-persistence-level` keeps subscriptions. */
const subscriptionsKey = 'subscriptions'
/** Keys that one write removes. */
const removedAtOnce = 1000

/** Keys of our own, beside those of `aedes-persistence-level`. */
const runKey = 'mqway:run'
const sessionKind = 'mqway:session'
const sessionKey = (id: string): string => `${sessionKind}:${encodeURIComponent(id)}`

/**
 * Opens, or makes, the database under `<data>/broker`.
 *
 * A write is in the kernel's hands when it is reported as done, and so survives the end of the process in whatever way;
 * not the machine's loss of power, which would take an fsync for each message.
 *
 * @throws {StartError} when another process has it open, or it cannot be read or made
 */
export async function openLevel(data: string): Promise<LevelBackend> {
  const directory = join(data, 'broker')
  // Not needed without durable state.
  const { default: LevelPersistence } = await import('aedes-persistence-level/asyncPersistence.js')
  const database = await openDatabase(directory).catch(error => {
    throw startError({ directory, holds: "the broker's state" }, error)
  })
  const run = Number((await database.get(runKey)) ?? 0) + 1
  await database.put(runKey, String(run))
  const batched = new BatchedLevel(database)
  const withIncoming = new Set<string>()
  for await (const key of database.keys(rangeOf('incoming'))) withIncoming.add(idOf(key, 'incoming'))
  const persistence = new LevelPersistence(persistenceView(batched, { withIncoming }))
  const queues = new LevelQueues(batched)
  return {
    persistence,
    subscriptions: storedSubscriptions(() => new LevelPersistence(persistenceView(batched, { subscriptions: true }))),
    queues,
    retained: new LevelRetained(batched, persistence, LevelPersistence),
    sessions: await readSessions(database),
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
  /** Whether it is to read subscriptions: `LevelPersistence` would load all of them at its start into a trie of its own. */
  readonly subscriptions?: boolean
  /** Client ids that packet identifiers of QoS 2 may be stored for: only theirs are removed, as each removal is a write. */
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

/** @param open makes a persistence that is asked one thing, so that the trie that it keeps besides goes with it */
function storedSubscriptions(open: () => Persistence): StoredSubscriptions {
  return {
    add: (session, subscriptions) => open().addSubscriptions(session, subscriptions),
    remove: (session, filters) => open().removeSubscriptions(session, filters),
    clear: session => open().cleanSubscriptions(session),
    read: session => open().subscriptionsByClient(session),
  }
}

/** The form in which a session is stored: `<seen>`, `<seen>:<owner>` or `<seen>@<network>:<owner>`. */
function sessionRecord({ seen, owner, network }: Pick<StoredSession, 'seen' | 'owner' | 'network'>): string {
  const from = network === undefined ? '' : `@${encodeURIComponent(network)}`
  return `${seen}${from}${owner === undefined ? '' : `:${owner}`}`
}

/** A record of a version that did not store when the client was there counts as of now. */
function parseRecord(id: string, record: string | undefined): Pick<StoredSession, 'id' | 'seen' | 'owner' | 'network'> {
  const [, seen, network, owner] = /^(\d+)(?:@([^:]*))?(?::(.*))?$/s.exec(record ?? '') ?? []
  return {
    id,
    owner,
    network: network === undefined ? undefined : decodeURIComponent(network),
    seen: Number(seen ?? Date.now()),
  }
}

/** The subscriptions of all sessions; keys are in the order of client ids. */
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

/** Removes all keys of these sessions, in bounded writes; the records go last, so that a start that is interrupted finds the rest again. */
async function removeSessions(database: LevelDatabase, ids: ReadonlySet<string>): Promise<void> {
  for (const kind of [subscriptionsKey, 'outgoing', 'outgoing-id', 'incoming', sessionKind]) {
    let keys: string[] = []
    const removeKeys = (): Promise<void> => database.batch(keys.map(key => ({ type: 'del', key })))
    for await (const key of database.keys(rangeOf(kind))) {
      if (!ids.has(idOf(key, kind))) continue
      if (keys.push(key) < removedAtOnce) continue
      await removeKeys()
      keys = []
    }
    await removeKeys()
  }
}

/** The client id in a key. */
function idOf(key: string, kind: string): string {
  return decodeURIComponent(key.slice(kind.length + 1).split(':', 1)[0] ?? '')
}

/** The sessions that anything is kept for; one key at a time, and a message at a time, is in memory. */
async function readSessions(database: LevelDatabase): Promise<StoredSession[]> {
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
  // Identifiers of a client that had no session, and was connected when the last run was killed.
  for await (const key of database.keys(rangeOf('incoming'))) {
    if (!sessions.has(idOf(key, 'incoming'))) await database.del(key)
  }
  return Array.from(sessions, ([id, { record, ...queue }]) => ({ ...parseRecord(id, record), ...queue }))
}
