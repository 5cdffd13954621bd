import type { Permissions } from '../access/topic-rules.js'
import { GatewayError } from '../base/errors.js'

/**
 * Sees to it that somebody may listen to all of `filters`.
 *
 * @throws {Ending} `topic-refused`, naming the first that they may not
 */
export function authorizeSubscribe({ maySubscribe }: Permissions, filters: readonly string[]): void {
  const refused = filters.find(filter => !maySubscribe(filter))
  if (refused !== undefined) throw new GatewayError('topic-refused', { hint: refused })
}
