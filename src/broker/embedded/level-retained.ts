import type { AedesPublishPacket } from 'aedes'
import type LevelPersistence from 'aedes-persistence-level/asyncPersistence.js'
import type { BatchedLevel } from '../../storage/batched-level.js'
import type { RetainedStorage } from './retained-storage.js'

/** `aedes-persistence-level` keeps a retained message under this and its topic. */
const prefix = 'retained:'

/** Retained messages on disk, as `aedes-persistence-level` keeps them. */
export class LevelRetained implements RetainedStorage {
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
    return this.#database.del(prefix + topic)
  }

  async read(topics: readonly string[]): Promise<readonly AedesPublishPacket[]> {
    const keys = topics.map(topic => prefix + topic)
    const values = await this.#database.getMany(keys)
    const packets: AedesPublishPacket[] = []
    // The library is the one that knows the encoding: it is given a view of the database that has no other values.
    const view = new this.#Persistence({ values: () => present(values) })
    for await (const packet of view.createRetainedStream('#')) packets.push(packet)
    return packets
  }
}

async function* present(values: readonly (Buffer | undefined)[]): AsyncGenerator<Buffer> {
  for (const value of values) if (value) yield value
}
