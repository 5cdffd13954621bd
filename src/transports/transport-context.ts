import type { AnonymousPublishes } from '../access/anonymous-publishes.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import type { ApiGate } from '../http/api-gate.js'
import type { BodyLimits } from '../http/buffered-bodies.js'
import type { UnreadResponses } from '../http/unread-responses.js'
import type { LiveConnections } from './live-connections.js'
import type { Push } from './push.js'
import type { WorkQueue } from './work-queue.js'

/** What every transport and compatible endpoint is made with. */
export interface TransportContext {
  readonly push: Push
  readonly gate: ApiGate
  readonly connections: LiveConnections
  readonly bodies: BodyLimits
  /** Has work for clients done in turns, a network after the other. */
  readonly queue: WorkQueue
  /** Bounds what complete answers hold. */
  readonly untaken: UnreadResponses
  /** Rates of callers without a user name; left out for any. */
  readonly anonymousPublishes?: AnonymousPublishes | undefined
  readonly log: Logger
  readonly metrics: Metrics
}
