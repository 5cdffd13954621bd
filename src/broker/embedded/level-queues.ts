import type { AedesPublishPacket } from 'aedes'
import { decode, encode } from 'msgpack-lite'
import type { BatchedLevel, KeyRange } from '../../storage/batched-level.js'
import { carried, propertiesOf, subscriptionIdentifiersOf, withSubscriptionIdentifiers } from './packet.js'
import {
  type ClearedMessage,
  isOver,
  noSuchPacket,
  type QueuedMessage,
  type QueueSize,
  type SessionQueues,
} from './session-queues.js'

/** Approximate overhead of a stored message, in bytes. */
const messageOverhead = 100

/** Pending removals of expired messages, while a queue is read. */
const maxRemovals = 1000

/** Messages of a queue that are read at once, and their bytes; the last one may exceed them. */
const [pageSize, pageBytes] = [64, 256 * 1024]

/** Bytes of one write, for a message queued for many sessions. */
const maxWriteBytes = 1024 ** 2

/**
 * Queues on disk: under `outgoing:` by client id, broker id and counter; and again under `outgoing-id:` by client id and packet identifier,
 * as soon as there is one. A message is encoded once for all sessions.
 */
export class LevelQueues implements SessionQueues {
  readonly isMemory = false
  readonly #database: BatchedLevel

  constructor(database: BatchedLevel) {
    this.#database = database
  }

  prepare(packet: AedesPublishPacket): QueuedMessage {
    const value = encode(storedFields(packet))
    return { bytes: storedBytes(value), topic: packet.topic, add: clientIds => this.#add(clientIds, packet, value) }
  }

  #add(clientIds: readonly string[], packet: AedesPublishPacket, value: Buffer): Promise<void> {
    // One write of all would hold up the event loop, and others' writes.
    const count = Math.max(1, Math.floor(maxWriteBytes / value.length))
    const writes: Promise<void>[] = []
    for (let from = 0; from < clientIds.length; from += count) {
      const changes = clientIds.slice(from, from + count).map(id => ({ key: messageKey(id, packet), value }))
      writes.push(this.#database.write(changes))
    }
    return Promise.all(writes).then(() => {})
  }

  async update(clientId: string, packet: AedesPublishPacket): Promise<number> {
    const key = packet.brokerId ? messageKey(clientId, packet) : await this.#keyOf(clientId, packet.messageId)
    const before = key && (await this.#database.get(key))
    if (!before) throw noSuchPacket()
    const { brokerId, brokerCounter, messageId, properties } = decodeMessage(before)
    // The delivered packet may lack the subscription identifiers.
    const kept = packet.cmd === 'publish' && properties ? { properties } : {}
    const value = encode(storedFields({ ...packet, ...kept, brokerId, brokerCounter }))
    const byId = idKey(clientId, packet.messageId)
    const isRenumbered = messageId && messageId !== packet.messageId
    await this.#database.write([
      ...(isRenumbered ? [{ key: idKey(clientId, messageId) }] : []),
      { key: byId, value },
      { key, value },
    ])
    return value.length - before.length
  }

  async #keyOf(clientId: string, messageId: number | undefined): Promise<string | undefined> {
    const value = await this.#database.get(idKey(clientId, messageId))
    return value && messageKey(clientId, decodeMessage(value))
  }

  async clear(clientId: string, messageId: number): Promise<ClearedMessage | undefined> {
    const byId = idKey(clientId, messageId)
    const value = await this.#database.get(byId)
    if (!value) return undefined
    const packet = decodeMessage(value)
    const written = this.#database.write([{ key: byId }, { key: messageKey(clientId, packet) }])
    return { packet, bytes: storedBytes(value), written }
  }

  async *read(clientId: string, onExpired: (bytes: number) => void): AsyncGenerator<AedesPublishPacket> {
    const range = rangeOf(`outgoing:${encodeURIComponent(clientId)}`)
    const removals: Promise<void>[] = []
    for await (const [key, value] of this.#entries(range)) {
      const packet = decodeMessage(value)
      if (!isOver(packet, packet.messageId)) {
        yield packet
        continue
      }
      if (!(await this.#isUnsent(key))) continue
      const removal = this.#database.del(key)
      removal.catch(() => {})
      onExpired(storedBytes(value))
      if (removals.push(removal) >= maxRemovals) await Promise.all(removals.splice(0))
    }
    await Promise.all(removals)
  }

  /**
   * The entries of a range, a page at a time: no iterator is open while the reader waits for a client, because LevelDB keeps everything on disk that is
   * deleted after an iterator was opened.
   */
  async *#entries({ gte, lt }: KeyRange): AsyncGenerator<[string, Buffer]> {
    for (let from: string | undefined = gte; from !== undefined; ) {
      const page: [string, Buffer][] = []
      let bytes = 0
      for await (const entry of this.#database.entries({ gte: from, lt })) {
        page.push(entry)
        bytes += entry[1].length
        if (page.length >= pageSize || bytes >= pageBytes) break
      }
      yield* page
      const last = page.at(-1)
      from = last && `${last[0]}\0`
    }
  }

  /** Whether a message is still there, and was not sent meanwhile. */
  async #isUnsent(key: string): Promise<boolean> {
    const value = await this.#database.get(key)
    return value !== undefined && !decodeMessage(value).messageId
  }

  async trim(clientId: string, maxBytes: number): Promise<QueueSize> {
    const range = rangeOf(`outgoing:${encodeURIComponent(clientId)}`)
    let [queued, bytes] = [0, 0]
    for await (const [key, value] of this.#database.entries(range)) {
      if (bytes + storedBytes(value) > maxBytes) {
        await this.#removeFrom(clientId, key, range.lt)
        break
      }
      bytes += storedBytes(value)
      queued++
    }
    return { queued, bytes }
  }

  /** Removes the messages from `key` on, with their packet identifiers. */
  async #removeFrom(clientId: string, key: string, lt: string): Promise<void> {
    for await (const value of this.#database.values({ gte: key, lt })) {
      const { messageId } = decodeMessage(value)
      if (messageId) await this.#database.del(idKey(clientId, messageId))
    }
    await this.#database.clear({ gte: key, lt })
  }

  async remove(clientId: string): Promise<void> {
    const id = encodeURIComponent(clientId)
    await Promise.all(['outgoing', 'outgoing-id'].map(kind => this.#database.clear(rangeOf(`${kind}:${id}`))))
  }
}

/** Range of the keys that begin with `prefix` and a colon; a semicolon is the next character. */
export function rangeOf(prefix: string): KeyRange {
  return { gte: `${prefix}:`, lt: `${prefix};` }
}

/** Bytes of a queued message, given its stored value. */
export function storedBytes(value: Buffer): number {
  return value.length + messageOverhead
}

function messageKey(clientId: string, { brokerId, brokerCounter }: AedesPublishPacket): string {
  return `outgoing:${encodeURIComponent(clientId)}:${brokerId}:${padded(brokerCounter)}`
}

function idKey(clientId: string, messageId: number | undefined): string {
  return `outgoing-id:${encodeURIComponent(clientId)}:${padded(messageId)}`
}

/** Keys sort by number. */
export function padded(number: number | undefined): string {
  return String(number).padStart(16, '0')
}

/** The members of MQTT 5 in a stored value; each is left out where there is none. */
interface StoredProperties {
  /** The first member: `unsentExpiry` finds it without decoding. */
  readonly expires?: number
  readonly properties?: Buffer
  readonly subscriptionIdentifiers?: readonly number[]
}

/** The stored fields, without those of the delivery, such as callbacks. */
export function storedFields(packet: AedesPublishPacket): object {
  const { cmd, brokerId, brokerCounter, topic, payload, qos, retain, dup, messageId } = packet
  const fields = { cmd, brokerId, brokerCounter, topic, payload, qos, retain, dup, messageId }
  const { properties, expires } = propertiesOf(packet)
  const subscriptionIdentifiers = subscriptionIdentifiersOf(packet)
  if (!properties && expires === undefined && !subscriptionIdentifiers) return fields
  const first: StoredProperties = expires === undefined ? {} : { expires }
  return {
    ...first,
    ...fields,
    ...(properties && { properties }),
    ...(subscriptionIdentifiers && { subscriptionIdentifiers }),
  }
}

type StoredMessage = Omit<AedesPublishPacket, 'properties'> & StoredProperties

/** Decodes a stored value. */
export function decodeMessage(value: Buffer): AedesPublishPacket {
  const stored = decode<AedesPublishPacket | StoredMessage>(value)
  if (!hasProperties(stored)) return stored
  const { expires, properties, subscriptionIdentifiers, ...packet } = stored
  const message = { ...packet, ...carried({ properties, expires }) }
  return subscriptionIdentifiers ? withSubscriptionIdentifiers(message, subscriptionIdentifiers) : message
}

function hasProperties(stored: AedesPublishPacket | StoredMessage): stored is StoredMessage {
  return 'expires' in stored || 'properties' in stored || 'subscriptionIdentifiers' in stored
}

/** A map of up to 15 members begins with its number of members in one byte; the name of the first one follows. */
const expiresPrefix = encode('expires')

/** When a stored message expires, in milliseconds since 1970; `undefined` if it does not, or was sent. */
export function unsentExpiry(value: Buffer): number | undefined {
  if (!value.subarray(1, 1 + expiresPrefix.length).equals(expiresPrefix)) return undefined
  const { messageId, messageExpiry } = decodeMessage(value)
  return messageId ? undefined : messageExpiry
}
