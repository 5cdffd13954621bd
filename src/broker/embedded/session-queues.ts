import type { AedesPublishPacket } from 'aedes'
import { isExpired, propertyBytes, subscriptionIdentifiersOf } from './packet.js'

/** Approximate overhead of a queued message, in bytes. */
const messageOverhead = 200

/** Bytes of a subscription identifier. */
const identifierBytes = 8

/** A message prepared for any number of queues. */
export interface QueuedMessage {
  readonly bytes: number
  readonly topic: string
  /** Adds it to these sessions' queues. `update`, `clear` and `read` see it at once; resolves when it is written. */
  add(clientIds: readonly string[]): Promise<void>
}

export interface QueueSize {
  readonly queued: number
  readonly bytes: number
}

export interface ClearedMessage {
  readonly packet: AedesPublishPacket
  readonly bytes: number
  readonly written: Promise<void>
}

/**
 * Queues of sessions: unacknowledged messages of QoS 1 and 2, ordered by broker id and counter, in whatever order they are added.
 */
export interface SessionQueues {
  readonly isMemory: boolean
  prepare(packet: AedesPublishPacket): QueuedMessage
  /**
   * Stores the packet identifier of a sent message; or a PUBREL, which has no broker id, in place of the message after PUBREC.
   *
   * @returns the growth of the queue in bytes
   * @throws {Error} `no such packet`
   */
  update(clientId: string, packet: AedesPublishPacket): Promise<number>
  /** Removes the message with a packet identifier; `update` and `read` see that at once. */
  clear(clientId: string, messageId: number): Promise<ClearedMessage | undefined>
  /**
   * Reads a queue. Expired messages that were not sent yet [MQTT-3.3.2-5] are removed instead.
   *
   * @param onExpired called with the bytes of each removed message
   */
  read(clientId: string, onExpired: (bytes: number) => void): AsyncIterable<AedesPublishPacket>
  /** Removes the newest messages until the rest has at most `maxBytes`. */
  trim(clientId: string, maxBytes: number): Promise<QueueSize>
  remove(clientId: string): Promise<void>
}

/** Thrown by `update`. */
export function noSuchPacket(): Error {
  return new Error('no such packet')
}

interface Entry {
  /** Shared by all queues that have the message. */
  packet: AedesPublishPacket
  messageId: number | undefined
}

/** Queues in memory; a message in many queues exists once. */
export class MemoryQueues implements SessionQueues {
  readonly isMemory = true
  readonly #queues = new Map<string, Entry[]>()

  prepare(packet: AedesPublishPacket): QueuedMessage {
    return {
      bytes: messageBytes(packet),
      topic: packet.topic,
      add: async clientIds => {
        for (const clientId of clientIds) this.#insert(clientId, { packet, messageId: undefined })
      },
    }
  }

  #insert(clientId: string, entry: Entry): void {
    const queue = this.#queues.get(clientId)
    if (!queue) {
      this.#queues.set(clientId, [entry])
      return
    }
    let position = queue.length
    while (position > 0 && isBefore(entry.packet, queue[position - 1]?.packet)) position--
    if (position === queue.length) queue.push(entry)
    else queue.splice(position, 0, entry)
  }

  async update(clientId: string, packet: AedesPublishPacket): Promise<number> {
    const queue = this.#queues.get(clientId) ?? []
    const { brokerId, brokerCounter, messageId } = packet
    const isSame = brokerId
      ? (entry: Entry) => entry.packet.brokerCounter === brokerCounter && entry.packet.brokerId === brokerId
      : (entry: Entry) => entry.messageId === messageId
    const entry = queue.find(isSame)
    if (!entry) throw noSuchPacket()
    entry.messageId = messageId
    if (brokerId && packet.cmd === entry.packet.cmd) return 0
    const before = messageBytes(entry.packet)
    entry.packet = { ...packet, brokerId: entry.packet.brokerId, brokerCounter: entry.packet.brokerCounter }
    return messageBytes(entry.packet) - before
  }

  async clear(clientId: string, messageId: number): Promise<ClearedMessage | undefined> {
    const queue = this.#queues.get(clientId) ?? []
    const position = queue.findIndex(entry => entry.messageId === messageId)
    const [entry] = position < 0 ? [] : queue.splice(position, 1)
    if (!entry) return undefined
    if (queue.length === 0) this.#queues.delete(clientId)
    return { packet: withId(entry), bytes: messageBytes(entry.packet), written: Promise.resolve() }
  }

  async *read(clientId: string, onExpired: (bytes: number) => void): AsyncGenerator<AedesPublishPacket> {
    for (const entry of [...(this.#queues.get(clientId) ?? [])]) {
      if (!isOver(entry.packet, entry.messageId)) yield withId(entry)
      else if (this.#remove(clientId, entry)) onExpired(messageBytes(entry.packet))
    }
  }

  #remove(clientId: string, entry: Entry): boolean {
    const queue = this.#queues.get(clientId) ?? []
    const position = queue.indexOf(entry)
    if (position < 0) return false
    queue.splice(position, 1)
    if (queue.length === 0) this.#queues.delete(clientId)
    return true
  }

  async trim(clientId: string, maxBytes: number): Promise<QueueSize> {
    const queue = this.#queues.get(clientId) ?? []
    let [queued, bytes] = [0, 0]
    for (const { packet } of queue) {
      if (bytes + messageBytes(packet) > maxBytes) break
      bytes += messageBytes(packet)
      queued++
    }
    queue.length = queued
    return { queued, bytes }
  }

  async remove(clientId: string): Promise<void> {
    this.#queues.delete(clientId)
  }
}

function withId({ packet, messageId }: Entry): AedesPublishPacket {
  return messageId === undefined ? packet : { ...packet, messageId }
}

/** A PUBREL has neither topic nor payload. */
function messageBytes(packet: Partial<AedesPublishPacket>): number {
  const { topic, payload, properties } = packet
  const identifiers = subscriptionIdentifiersOf({ properties })?.length ?? 0
  const content = (topic?.length ?? 0) + (payload?.length ?? 0) + propertyBytes({ properties })
  return messageOverhead + content + identifiers * identifierBytes
}

/** Whether a queued message is expired. One that was sent is sent again until it is acknowledged [MQTT-4.4.0-1]. */
export function isOver(packet: AedesPublishPacket, messageId: number | undefined): boolean {
  return !messageId && isExpired(packet)
}

function isBefore(packet: AedesPublishPacket, other: AedesPublishPacket | undefined): boolean {
  if (!other) return false
  if (packet.brokerId !== other.brokerId) return packet.brokerId < other.brokerId
  return packet.brokerCounter < other.brokerCounter
}
