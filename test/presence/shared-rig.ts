import { createLog } from '../../src/base/log.js'
import { TimeSlicer } from '../../src/base/time-slicer.js'
import { LeaderMessages } from '../../src/presence/leader-messages.js'
import type { PresenceHandle } from '../../src/presence/presence.js'
import type { PresenceChange } from '../../src/presence/presence-messages.js'
import { SharedPresence } from '../../src/presence/shared-presence.js'
import { type GatewayMaps, openGatewayMaps } from '../../src/storage/gateway-maps.js'
import { openSharedRedis, type SharedRedis } from '../../src/storage/shared-redis.js'
import type { RedisServer } from '../helpers/redis.js'

const log = createLog({ level: 'silent', format: 'json' })

/** The presence of one gateway. */
export interface TestPresence {
  readonly presence: SharedPresence
  readonly maps: GatewayMaps
  readonly shared: SharedRedis
  enter(device: string, topics: string[], user?: string): PresenceHandle
  /** Device, filter and connections of all listeners of a topic. */
  at(topic: string): string[]
  /** Takes the lease from whichever gateway has it, which learns that only from Redis. */
  lead(): Promise<void>
  /** Ends it without a last word. */
  kill(): Promise<void>
  close(): Promise<void>
}

export interface TestPresenceOptions {
  readonly redis: RedisServer
  /** Gets what this gateway publishes. */
  readonly told: PresenceChange[]
  readonly grace?: number
  readonly lease?: number
  readonly url?: string
  /** Resolves once all that was published is sent. */
  readonly drained?: () => Promise<void>
  /** Whether its lease has not ended, once it leads. */
  readonly isHeld?: () => boolean
}

let tokens = 0

export async function startPresence({
  redis,
  told,
  grace = 10_000,
  lease = 500,
  url = redis.url,
  drained = async () => {},
  isHeld = () => true,
}: TestPresenceOptions): Promise<TestPresence> {
  const shared = await openSharedRedis({ url, prefix: 'mqway:' }, log)
  const slicer = new TimeSlicer()
  const leader = new LeaderMessages({
    messages: { publish: change => told.push(change), drained },
    isHeld: () => isHeld(),
    mark: (token, mark) => maps.mark(token, mark),
  })
  const presence = new SharedPresence({ grace, messages: leader, slicer })
  const maps = await openGatewayMaps({
    ...{ shared, name: 'presence', leaderLease: 'mqway:leader', follower: presence, slicer, log, lease },
  })
  presence.attach(maps)
  const end = async (): Promise<void> => {
    await leader.close()
    await maps.close(grace)
    presence.close()
    await shared.close()
  }
  return {
    ...{ presence, maps, shared },
    enter: (device, topics, user) => presence.enter({ device, topics, user, transport: 'sse', address: '127.0.0.1' }),
    at: topic =>
      presence
        .at(topic, 100)
        .listeners.map(({ device, connections, topics }) => `${device} ${[...topics].sort().join(',')} ${connections}`)
        .sort(),
    lead: async () => {
      const token = `token-${++tokens}`
      await redis.client.set('mqway:leader', token)
      await leader.lead(token)
    },
    kill: () => {
      shared.redis.disconnect()
      return end()
    },
    close: end,
  }
}
