import type { AnonymousPublishes } from '../access/anonymous-publishes.js'
import type { Client } from '../access/client-address.js'
import { accountOf } from '../access/limits.js'
import type { RateLimits } from '../access/rate-limits.js'
import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'

/** The client that publishes. */
export interface PublishingCaller {
  readonly identity: Pick<Identity, 'user'>
  readonly client: Pick<Client, 'address'>
}

/** Whose messages it is that count together: of somebody who is not known, the address has to do. */
export function publisherAccount({ identity: { user }, client: { address } }: PublishingCaller): string {
  return accountOf(user, address)
}

/** Rates at which callers publish. */
export interface PublishRates {
  /** Messages of each user, or of each address where there is none; left out for any number. */
  readonly publishes?: RateLimits | undefined
  /** Messages of callers without a user name, beside that; left out for any number. */
  readonly anonymousPublishes?: AnonymousPublishes | undefined
}

/**
 * Counts messages that somebody publishes.
 *
 * @param bytes of their topics and payloads
 * @throws {Ending} `publishing-too-fast`
 */
export function countPublishes(
  { publishes, anonymousPublishes }: PublishRates,
  caller: PublishingCaller,
  messages: number,
  bytes: number,
): void {
  const who = publisherAccount(caller)
  const wait = Math.max(publishes?.wait(who) ?? 0, anonymousWait(anonymousPublishes, caller))
  if (wait > 0) throw new GatewayError('publishing-too-fast', { retryAfter: Math.ceil(wait / 1000) })
  publishes?.spend(who, messages)
  countAnonymous(anonymousPublishes, caller, messages, bytes)
}

/** Milliseconds until a caller without a user name may publish again; 0 for any other. */
export function anonymousWait(limits: AnonymousPublishes | undefined, { identity, client }: PublishingCaller): number {
  return identity.user === undefined ? (limits?.wait(client.address) ?? 0) : 0
}

/** Counts messages of a caller without a user name. */
export function countAnonymous(
  limits: AnonymousPublishes | undefined,
  { identity, client }: PublishingCaller,
  messages: number,
  bytes: number,
): void {
  if (identity.user === undefined) limits?.spend(client.address, messages, bytes)
}
