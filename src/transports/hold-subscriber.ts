import { accountOf } from '../access/limits.js'
import type { ApiGate, Caller } from '../http/api-gate.js'
import type { FilterQuota } from '../hub/filter-quota.js'

/** What counts subscribers. */
export interface SubscriberCounts {
  readonly gate: Pick<ApiGate, 'hold'>
  readonly push: { readonly filterQuota: FilterQuota }
}

/**
 * Counts a request that stays open, and the filters that it listens to.
 *
 * @returns what gives both back; calling it again does nothing
 * @throws {Ending} as `ApiGate.hold`, and `filters-too-many`
 */
export function holdSubscriber(
  { gate, push }: SubscriberCounts,
  caller: Caller,
  filters: readonly string[],
): () => void {
  const { client, identity } = caller
  const held = push.filterQuota.hold(accountOf(identity.user, client.address), filters)
  try {
    const release = gate.hold(caller)
    return () => {
      release()
      held.release()
    }
  } catch (error) {
    held.release()
    throw error
  }
}
