import { join } from 'node:path'
import type { AedesPublishPacket } from 'aedes'
import type { Level as LevelDatabase } from 'level'
import { decode, encode } from 'msgpack-lite'
import type { Logger } from '../../base/log.js'
import { BatchedLevel } from '../../storage/batched-level.js'
import { openDatabase, startError } from '../../storage/open-level.js'
import { RecoveringLevel } from '../../storage/recovering-level.js'
import { decodeMessage, LevelQueues, padded, rangeOf, storedBytes, storedFields, unsentExpiry } from './level-queues.js'
import { PacketIds } from './packet-ids.js'
import type {
  RetainedStorage,
  SessionRecord,
  StorageBackend,
  StoredSession,
  StoredSubscription,
  StoredWill,
} from './storage-backend.js'

export interface LevelBackend extends StorageBackend {
  /** Number of this run: how many times the directory has been opened. */
  readonly run: number
  /** Why nothing can be written; `undefined` while it can. */
  readonly failure: string | undefined
  close(): Promise<void>
}

/** Keys removed in one write. */
const removalBatch = 1000

/*
 * Keys have a client id that is encoded, and so without a colon; values are in MessagePack.
 *
 *   subscriptions:<client id>:<filter>        a subscription
 *   outgoing:…, outgoing-id:…                 a queued message (see level-queues.ts)
 *   incoming:<client id>:<packet identifier>  a message of QoS 2 waits for PUBREL; without a value
 *   will:<client id>                          the will of a connected client
 *   retained:<topic>                          a retained message
 *   mqway:session:<client id>                 when its client was connected, when it ends, and whose it is, as text
 *   mqway:run                                 the number of the last run
 */
const runKey = 'mqway:run'
const sessionKind = 'mqway:session'
const keyOf = (kind: string, clientId: string): string => `${kind}:${encodeURIComponent(clientId)}`
const incomingKey = (id: string, messageId: number): string => `${keyOf('incoming', id)}:${padded(messageId)}`

/**
 * Opens or creates the database in `<data>/broker`.
 *
 * A finished write survives the end of the process, but not a loss of power, which would take an fsync for each message.
 *
 * @throws {StartError} when another process has it open, or it cannot be read or created
 */
export async function openLevel(data: string, log: Logger): Promise<LevelBackend> {
  const place = { directory: join(data, 'broker'), holds: "the broker's state" }
  const database = await openDatabase(place.directory).catch(error => {
    throw startError(place, error)
  })
  const run = Number((await database.get(runKey)) ?? 0) + 1
  await database.put(runKey, String(run))
  const recovering = new RecoveringLevel(database, place, log)
  const batched = new BatchedLevel(recovering)
  const incoming = new Map<string, PacketIds>()
  const sessions = await readSessions(database, incoming)
  const queues = new LevelQueues(batched)
  return {
    get failure() {
      return recovering.failure
    },
    ...{ run, queues, incoming, sessions },
    retained: new LevelRetained(batched),
    keepSession: (id, session) => batched.put(keyOf(sessionKind, id), Buffer.from(sessionRecord(session))),
    removeSession: async id => {
      await Promise.all([batched.clear(rangeOf(keyOf('subscriptions', id))), queues.remove(id)])
      await batched.del(keyOf(sessionKind, id))
    },
    removeSessions: ids => removeSessions(database, ids),
    allSubscriptions: () => allSubscriptions(database),
    addSubscriptions: (id, subscriptions) =>
      batched.write(
        subscriptions.map(subscription => ({
          key: `${keyOf('subscriptions', id)}:${subscription.topic}`,
          value: encode(subscriptionFields(id, subscription)),
        })),
      ),
    removeSubscriptions: (id, filters) =>
      batched.write(filters.map(filter => ({ key: `${keyOf('subscriptions', id)}:${filter}` }))),
    addIncoming: (id, messageId) => batched.put(incomingKey(id, messageId), Buffer.alloc(0)),
    removeIncoming: (id, messageId) => batched.del(incomingKey(id, messageId)),
    clearIncoming: id => batched.clear(rangeOf(keyOf('incoming', id))),
    putWill: will => batched.put(keyOf('will', will.clientId), encode(willFields(will))),
    removeWill: clientId => batched.del(keyOf('will', clientId)),
    will: async clientId => {
      const value = await batched.get(keyOf('will', clientId))
      return value && decodeWill(value)
    },
    wills: async function* () {
      for await (const value of batched.values(rangeOf('will'))) yield decodeWill(value)
    },
    close: () => batched.close(),
  }
}

/** The stored fields of a subscription; options of MQTT 5 only where they are set. */
function subscriptionFields(clientId: string, subscription: StoredSubscription): object {
  const { topic, qos, nl, rap, subscriptionIdentifiers } = subscription
  return {
    ...{ topic, qos, clientId },
    ...(nl && { nl }),
    ...(rap && { rap }),
    ...(subscriptionIdentifiers && { subscriptionIdentifiers }),
  }
}

/** The members of MQTT 5 in a stored will; each is left out where there is none. */
interface StoredWillProperties {
  readonly delay?: number
  readonly messageExpiryInterval?: number
  readonly properties?: Buffer
}

/** The stored fields of a will. */
function willFields({ topic, payload, qos, retain, brokerId, clientId, properties = {} }: StoredWill): object {
  const { willDelayInterval, messageExpiryInterval, encoded } = properties
  return {
    ...{ topic, payload, qos, retain, brokerId, clientId },
    ...(willDelayInterval !== undefined && { delay: willDelayInterval }),
    ...(messageExpiryInterval !== undefined && { messageExpiryInterval }),
    ...(encoded && { properties: encoded }),
  }
}

function decodeWill(value: Buffer): StoredWill {
  const { delay, messageExpiryInterval, properties, ...will } = decode<
    Omit<StoredWill, 'properties'> & StoredWillProperties
  >(value)
  if (delay === undefined && messageExpiryInterval === undefined && !properties) return will
  const found = {
    ...(delay !== undefined && { willDelayInterval: delay }),
    ...(messageExpiryInterval !== undefined && { messageExpiryInterval }),
    ...(properties && { encoded: properties }),
  }
  return { ...will, properties: found }
}

/**
 * Format of a session record: `<seen>`, and if there is one `/<expiry>`, `+` if the client is connected, `@<network>` and `:<owner>`.
 */
function sessionRecord({ seen, expiry, wasConnected, owner, network }: SessionRecord): string {
  const parts = [
    expiry === undefined ? '' : `/${expiry}`,
    wasConnected ? '+' : '',
    network === undefined ? '' : `@${encodeURIComponent(network)}`,
    owner === undefined ? '' : `:${owner}`,
  ]
  return `${seen}${parts.join('')}`
}

/** A session without a record counts as seen now. */
function parseRecord(id: string, record: string | undefined): SessionRecord & Pick<StoredSession, 'id'> {
  const format = /^(\d+)(?:\/(\d+))?(\+)?(?:@([^:]*))?(?::(.*))?$/s
  const [, seen, expiry, connected, network, owner] = format.exec(record ?? '') ?? []
  return {
    id,
    owner,
    wasConnected: connected !== undefined,
    ...(expiry !== undefined && { expiry: Number(expiry) }),
    network: network === undefined ? undefined : decodeURIComponent(network),
    seen: Number(seen ?? Date.now()),
  }
}

/** The subscriptions of all sessions; keys are in order of client id. */
async function* allSubscriptions(
  database: LevelDatabase,
): AsyncGenerator<readonly [string, readonly StoredSubscription[]]> {
  let current = ''
  let subscriptions: StoredSubscription[] = []
  const values = database.values<string, Buffer>({ ...rangeOf('subscriptions'), valueEncoding: 'buffer' })
  for await (const value of values) {
    const { clientId, ...subscription } = decode<StoredSubscription & { clientId: string }>(value)
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
  for (const kind of ['subscriptions', 'outgoing', 'outgoing-id', 'incoming', sessionKind]) {
    const keys: string[] = []
    for await (const key of database.keys(rangeOf(kind))) {
      if (!ids.has(idOf(key, kind))) continue
      if (keys.push(key) >= removalBatch) await removeKeys(database, keys.splice(0))
    }
    await removeKeys(database, keys)
  }
}

function removeKeys(database: LevelDatabase, keys: readonly string[]): Promise<void> {
  return database.batch(keys.map(key => ({ type: 'del', key })))
}

function idOf(key: string, kind: string): string {
  return decodeURIComponent(key.slice(kind.length + 1).split(':', 1)[0] ?? '')
}

interface FoundSession {
  queued: number
  bytes: number
  nextExpiry?: number
  record?: string
}

/**
 * The stored sessions; reads one key and one message at a time. Removes expired messages.
 *
 * @param incoming gets the packet identifiers of QoS 2 of each session
 */
async function readSessions(database: LevelDatabase, incoming: Map<string, PacketIds>): Promise<StoredSession[]> {
  const sessions = new Map<string, FoundSession>()
  const sessionOf = (key: string, kind: string): FoundSession => {
    const id = idOf(key, kind)
    const session: FoundSession = sessions.get(id) ?? { queued: 0, bytes: 0 }
    sessions.set(id, session)
    return session
  }
  for await (const [key, record] of database.iterator(rangeOf(sessionKind))) {
    sessionOf(key, sessionKind).record = record
  }
  for await (const key of database.keys(rangeOf('subscriptions'))) sessionOf(key, 'subscriptions')
  const messages = database.iterator<string, Buffer>({ ...rangeOf('outgoing'), valueEncoding: 'buffer' })
  const expired: string[] = []
  for await (const [key, value] of messages) {
    const expiry = unsentExpiry(value)
    if (expiry !== undefined && expiry <= Date.now()) {
      if (expired.push(key) >= removalBatch) await removeKeys(database, expired.splice(0))
      continue
    }
    const session = sessionOf(key, 'outgoing')
    if (expiry !== undefined) session.nextExpiry = Math.min(expiry, session.nextExpiry ?? expiry)
    session.queued++
    session.bytes += storedBytes(value)
  }
  await removeKeys(database, expired)
  for await (const key of database.keys(rangeOf('incoming'))) {
    const id = idOf(key, 'incoming')
    if (!sessions.has(id)) {
      // A client without a session was connected when the last run was killed.
      await database.del(key)
      continue
    }
    const identifiers = incoming.get(id) ?? new PacketIds()
    incoming.set(id, identifiers)
    identifiers.take(Number(key.slice(key.lastIndexOf(':') + 1)), 'pubcomp')
  }
  return Array.from(sessions, ([id, { record, ...queue }]) => ({ ...parseRecord(id, record), ...queue }))
}

const retainedPrefix = 'retained:'

class LevelRetained implements RetainedStorage {
  readonly isMemory = false
  readonly #database: BatchedLevel

  constructor(database: BatchedLevel) {
    this.#database = database
  }

  async *load(): AsyncGenerator<AedesPublishPacket> {
    for await (const value of this.#database.values(rangeOf('retained'))) yield decodeMessage(value)
  }

  put(packet: AedesPublishPacket): Promise<void> {
    return this.#database.put(retainedPrefix + packet.topic, encode(storedFields(packet)))
  }

  remove(topic: string): Promise<void> {
    return this.#database.del(retainedPrefix + topic)
  }

  async read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]> {
    const values = await this.#database.getMany(topics.map(topic => retainedPrefix + topic))
    return values.filter(value => value !== undefined).map(decodeMessage)
  }
}
