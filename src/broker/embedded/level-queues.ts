import type { AedesPublishPacket } from 'aedes'
import { decode, encode } from 'msgpack-lite'
import type { BatchedLevel, KeyRange } from '../../storage/batched-level.js'
import {
  type ClearedMessage,
  noSuchPacket,
  type QueuedMessage,
  type QueueSize,
  type SessionQueues,
} from './session-queues.js'

/** Approximate overhead of a stored message, in bytes. */
const messageOverhead = 100

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
    const { brokerId, brokerCounter, messageId } = decodeMessage(before)
    const value = encode(storedFields({ ...packet, brokerId, brokerCounter }))
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

  async *read(clientId: string): AsyncGenerator<AedesPublishPacket> {
    const range = rangeOf(`outgoing:${encodeURIComponent(clientId)}`)
    for await (const value of this.#database.values(range)) yield decodeMessage(value)
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

/** The stored fields, without those of the delivery, such as callbacks. */
export function storedFields(packet: AedesPublishPacket): object {
  const { cmd, brokerId, brokerCounter, topic, payload, qos, retain, dup, messageId } = packet
  return { cmd, brokerId, brokerCounter, topic, payload, qos, retain, dup, messageId }
}

/** Decodes a stored value. */
export function decodeMessage(value: Buffer): AedesPublishPacket {
  return decode(value)
}
