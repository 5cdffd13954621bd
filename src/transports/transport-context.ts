import type { AnonymousPublishes } from '../access/anonymous-publishes.js'
import type { Identity } from '../base/identity.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import type { PushConfig } from '../config/push.js'
import type { ApiGate } from '../http/api-gate.js'
import type { BodyLimits } from '../http/buffered-bodies.js'
import type { BodyEncoders } from '../http/compressor.js'
import type { UnreadResponses } from '../http/unread-responses.js'
import type { FilterQuota } from '../hub/filter-quota.js'
import type { Hub } from '../hub/hub.js'
import type { Journal } from '../journal/journal.js'
import type { Presence } from '../presence/presence.js'
import type { Receipts } from '../receipts/receipts.js'
import type { Publisher } from '../sources/publisher.js'
import type { SharedState } from '../storage/shared-state.js'
import type { LiveConnections } from './live-connections.js'
import type { OpenPolls } from './poll/open-polls.js'
import type { WorkQueue } from './work-queue.js'

/** Shared by all transports and compatible endpoints. */
export interface TransportContext {
  readonly push: Push
  readonly gate: ApiGate
  readonly connections: LiveConnections
  /** The waiting polls, over reloads; left out for those of each endpoint. */
  readonly polls?: OpenPolls | undefined
  /** Whether a reload has replaced this context: the next request of a connection is admitted by the new one. */
  readonly isReplaced?: (() => boolean) | undefined
  /** Small state, which several gateways share. */
  readonly state: SharedState
  /** As `LiveConnections.renew`, for connections of other worker processes; left out without them. */
  readonly renewElsewhere?: ((connection: string, identity: Identity) => Promise<boolean>) | undefined
  readonly bodies: BodyLimits
  /** Runs the work of clients in turn, by network. */
  readonly queue: WorkQueue
  /** Bounds the unread bytes of complete responses. */
  readonly unreadResponses: UnreadResponses
  /** Compress responses to polls; left out for none. */
  readonly bodyEncoders?: BodyEncoders | undefined
  /** Rates of callers without a user; left out for no limit. */
  readonly anonymousPublishes?: AnonymousPublishes | undefined
  readonly log: Logger
  readonly metrics: Metrics
}

/** The parts of push that transports use. */
export interface Push {
  readonly hub: Hub
  readonly journal: Journal
  readonly publisher: Publisher
  readonly receipts: Receipts
  readonly presence: Presence
  /** Quota of the subscribers' filters. */
  readonly filterQuota: FilterQuota
  readonly config: PushConfig
}
