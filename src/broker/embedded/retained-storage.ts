import type { AedesPublishPacket } from 'aedes'

/** Retained messages by topic, in memory or on disk. It has no bounds. */
export interface RetainedStorage {
  /** Whether `read` hands out what is in memory anyway. */
  readonly isMemory: boolean
  /** All messages, one after the other. */
  load(): AsyncIterable<AedesPublishPacket>
  /** `read` returns it at once; resolves when it is on disk, and is `undefined` where there is none. */
  put(packet: AedesPublishPacket): Promise<void> | undefined
  remove(topic: string): Promise<void> | undefined
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

  put(packet: AedesPublishPacket): undefined {
    this.#packets.set(packet.topic, packet)
  }

  remove(topic: string): undefined {
    this.#packets.delete(topic)
  }

  async read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]> {
    return topics.map(topic => this.#packets.get(topic)).filter(packet => packet !== undefined)
  }
}
