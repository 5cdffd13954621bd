import type { PushConfig } from '../config/push.js'
import type { FilterQuota } from '../hub/filter-quota.js'
import type { Hub } from '../hub/hub.js'
import type { Journal } from '../journal/journal.js'
import type { Presence } from '../presence/presence.js'
import type { Receipts } from '../receipts/receipts.js'
import type { Publisher } from '../sources/publisher.js'

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
