import type { AedesPublishPacket } from 'aedes'

/** Bytes that a queued message takes beyond its topic and payload, about. */
const messageOverhead = 200

/** A message that is ready to be queued, for any number of sessions. */
export interface QueuedMessage {
  /** Bytes that it takes in each queue. */
  readonly bytes: number
  readonly topic: string
  /** Adds it to the queues of these sessions: `update`, `clear` and `read` have it at once. Resolves when it is written. */
  add(clientIds: readonly string[]): Promise<void>
}

/** Messages in a queue, and the bytes that they take. */
export interface QueueSize {
  readonly queued: number
  readonly bytes: number
}

/** A message that has left a queue. */
export interface ClearedMessage {
  readonly packet: AedesPublishPacket
  readonly bytes: number
}

/**
 * The queues of sessions: messages of QoS 1 and 2 that their client has not acknowledged yet, in the order of their broker id and counter,
 * whatever the order in which they are added.
 */
export interface SessionQueues {
  /** Whether nothing is written to disk. */
  readonly isMemory: boolean
  prepare(packet: AedesPublishPacket): QueuedMessage
  /**
   * Stores the packet identifier under which a message is sent; or for a PUBREL, which has no broker id, that PUBREC has come for its
   * identifier, and the message is not needed any more.
   *
   * @returns by how many bytes the queue has grown
   * @throws {Error} `no such packet`
   */
  update(clientId: string, packet: AedesPublishPacket): Promise<number>
  /** Removes the message that was sent under a packet identifier. */
  clear(clientId: string, messageId: number): Promise<ClearedMessage | undefined>
  /** The messages as they are now. */
  read(clientId: string): AsyncIterable<AedesPublishPacket>
  /** Removes the newest messages until the others take no more than so many bytes. */
  trim(clientId: string, maxBytes: number): Promise<QueueSize>
  /** Removes the whole queue. */
  remove(clientId: string): Promise<void>
}

/** Thrown by `update`; Aedes and its persistences know it by this text. */
export function noSuchPacket(): Error {
  return new Error('no such packet')
}

interface Entry {
  /** Shared by all sessions that it was queued for. */
  packet: AedesPublishPacket
  messageId: number | undefined
}

/** Queues in memory. A message that is queued for many sessions is kept once. */
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
    return { packet: withId(entry), bytes: messageBytes(entry.packet) }
  }

  async *read(clientId: string): AsyncGenerator<AedesPublishPacket> {
    for (const entry of [...(this.#queues.get(clientId) ?? [])]) yield withId(entry)
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
function messageBytes({ topic, payload }: Partial<AedesPublishPacket>): number {
  return messageOverhead + (topic?.length ?? 0) + (payload?.length ?? 0)
}

function isBefore(packet: AedesPublishPacket, other: AedesPublishPacket | undefined): boolean {
  if (!other) return false
  if (packet.brokerId !== other.brokerId) return packet.brokerId < other.brokerId
  return packet.brokerCounter < other.brokerCounter
}
