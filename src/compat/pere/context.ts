import type { RateLimits } from '../../access/rate-limits.js'
import type { StreamContext } from '../../transports/sse/event-stream.js'
import type { TransportContext } from '../../transports/transport-context.js'
import type { OpenFeeds } from './open-feeds.js'
import type { Publishers } from './publishers.js'
import type { ChannelReader } from './requests.js'

export interface PereOptions extends TransportContext {
  /** Where its URLs begin: `/pere`, or `/`. */
  readonly prefix: string
  /** Rate of messages by user, or by address for clients without a user name; no limit when left out. */
  readonly publishes?: RateLimits | undefined
  /** Milliseconds since 1970. */
  readonly now?: () => number
}

/** Parts that PERE's routes share. */
export interface PereContext extends StreamContext {
  readonly feeds: OpenFeeds
  readonly publishers: Publishers
  readonly publishes: RateLimits | undefined
  readonly channelOf: ChannelReader
  readonly now: () => number
}
