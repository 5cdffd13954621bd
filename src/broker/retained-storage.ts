import type { AedesPublishPacket } from 'aedes'

/** Retained messages by topic, in memory or on disk. It has no bounds. */
export interface RetainedStorage {
  /** Whether `read` hands out what is in memory anyway. */
  readonly isMemory: boolean
  /** All messages, one after the other. */
  load(): AsyncIterable<AedesPublishPacket>
  put(packet: AedesPublishPacket): Promise<void>
  remove(topic: string): Promise<void>
  /** The messages of `topics`, in their order, without those that have none. */
  read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]>
}

/** Keeps them in memory, until the program ends. */
export class RetainedMemory implements RetainedStorage {
  readonly isMemory = true
  readonly #packets = new Map<string, AedesPublishPacket>()

  async *load(): AsyncGenerator<AedesPublishPacket> {
    yield* this.#packets.values()
  }

  async put(packet: AedesPublishPacket): Promise<void> {
    this.#packets.set(packet.topic, packet)
  }

  async remove(topic: string): Promise<void> {
    this.#packets.delete(topic)
  }

  async read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]> {
    return topics.map(topic => this.#packets.get(topic)).filter(packet => packet !== undefined)
  }
}
