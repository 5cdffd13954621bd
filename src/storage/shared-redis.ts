import type { Logger } from '../base/log.js'
import { connectRedis, type Redis, type RedisConfig, redisOptions } from './redis.js'

/** The Redis that several gateways share, and this gateway's connection for small state. */
export interface SharedRedis {
  /** With absolute paths. */
  readonly config: RedisConfig
  /** Commands fail at once while it is not connected; it reconnects by itself. */
  readonly redis: Redis
  /** Idempotent. */
  close(): Promise<void>
}

/**
 * Connects.
 *
 * @throws {StartError} if Redis cannot be reached, or refuses the login
 */
export async function openSharedRedis(config: RedisConfig, log: Logger): Promise<SharedRedis> {
  const redis = await connectRedis(await redisOptions(config), nameOf(config), log)
  return {
    config,
    redis,
    close: async () => redis.disconnect(),
  }
}

/** The address of a Redis, for errors. */
export function nameOf({ url, sentinel }: RedisConfig): string {
  return sentinel ? `${sentinel.name} of ${sentinel.addresses.join(', ')}` : url
}
