import { accountOf } from '../access/limits.js'
import type { RateLimits } from '../access/rate-limits.js'
import { Ending } from '../endings.js'
import type { Caller } from '../http/api-gate.js'

/** Whose messages it is that count together: of somebody who is not known, the address has to do. */
export function publisherName({
  identity: { user },
  client: { address },
}: Pick<Caller, 'identity' | 'client'>): string {
  return accountOf(user, address)
}

/**
 * Counts messages that somebody publishes.
 *
 * @param publishes messages of each user, or of each address where there is none; `undefined` for any number
 * @throws {Ending} `publishing-too-fast`
 */
export function spendPublishes(publishes: RateLimits | undefined, caller: Caller, messages: number): void {
  const who = publisherName(caller)
  const wait = publishes?.wait(who) ?? 0
  if (wait > 0) throw new Ending('publishing-too-fast', { retryAfter: Math.ceil(wait / 1000) })
  publishes?.spend(who, messages)
}
