import type { PushConfig } from '../config/push.js'
import type { FilterQuota } from './filter-quota.js'
import type { Hub } from './hub.js'
import type { Journal } from './journal.js'
import type { Presence } from './presence.js'
import type { Publisher } from './publisher.js'
import type { Receipts } from './receipts.js'

/** The push side, as transports and compatible endpoints use it. */
export interface Push {
  readonly hub: Hub
  readonly journal: Journal
  readonly publisher: Publisher
  readonly receipts: Receipts
  readonly presence: Presence
  /** Counts the filters of subscribers. */
  readonly filterQuota: FilterQuota
  readonly config: PushConfig
}
