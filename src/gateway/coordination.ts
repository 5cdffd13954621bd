import type { RedisJournal } from '../journal/redis-journal.js'
import type { Coordinator } from '../storage/coordinator.js'
import type { SharedRedis } from '../storage/shared-redis.js'
import type { Store } from '../storage/store.js'

/** What only one of several gateways does, and the stores that it has for that. */
export interface Coordination {
  readonly coordinator: Coordinator
  /** Opens a store that all gateways have in common, for the coordinator with this token. */
  openStore(name: string, token: string): Store
  /** Has the journal read what other gateways have appended. */
  catchUp(): Promise<void>
  /** Another gateway becomes the coordinator at once. Idempotent. */
  close(): Promise<void>
}

/** @param canPublish whether this gateway can publish at the broker */
export async function openCoordination(
  shared: SharedRedis,
  journal: RedisJournal,
  canPublish: () => boolean,
): Promise<Coordination> {
  const { Coordinator } = await import('../storage/coordinator.js')
  const { RedisStore } = await import('../storage/redis-store.js')
  const { redis, config } = shared
  const coordinator = new Coordinator({ shared, readerLease: `${config.prefix}lease`, canPublish })
  return {
    coordinator,
    openStore: (name, token) =>
      new RedisStore({ redis, lease: coordinator.key, token, key: `${config.prefix}${name}` }),
    catchUp: () => journal.catchUp(),
    close: () => coordinator.close(),
  }
}
