import type { AnonymousPublishes } from '../access/anonymous-publishes.js'
import type { Client } from '../access/client-address.js'
import { accountOf } from '../access/limits.js'
import { type Rate, type RateLimits, TokenBucket } from '../access/rate-limits.js'
import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import type { Event } from '../journal/event.js'
import { sizeOf } from '../journal/journal.js'
import type { Message } from '../mqtt/message.js'
import { deviceOfClient } from '../presence/mqtt-subscribers.js'
import type { Receipts } from '../receipts/receipts.js'
import type { PublishOptions } from '../sources/publisher.js'
import type { Publication } from './message-json.js'

/*
 * Shared by everything that publishes: rate limits, and receipts.
 */

export interface PublishingCaller {
  readonly identity: Pick<Identity, 'user'>
  readonly client: Pick<Client, 'address'>
}

/** Rate-limit key: the user, else the client's network. */
export function publisherAccount({ identity: { user }, client: { address } }: PublishingCaller): string {
  return accountOf(user, address)
}

export interface PublishRates {
  /** Messages of each user, or of each network without a user; left out for no limit. */
  readonly publishes?: RateLimits | undefined
  /** Messages of callers without a user, in addition; left out for no limit. */
  readonly anonymousPublishes?: AnonymousPublishes | undefined
}

/**
 * Counts messages of a caller.
 *
 * @param bytes of their topics, payloads and properties
 * @throws {GatewayError} `publishing-too-fast`
 */
export function countPublishes(
  { publishes, anonymousPublishes }: PublishRates,
  caller: PublishingCaller,
  messages: number,
  bytes: number,
): void {
  const account = publisherAccount(caller)
  requireNoWait(Math.max(publishes?.wait(account) ?? 0, anonymousWait(anonymousPublishes, caller)))
  publishes?.spend(account, messages)
  countAnonymous(anonymousPublishes, caller, messages, bytes)
}

/** The publish rate of one connection, together with that of callers without a user. */
export class ConnectionRate {
  readonly #bucket: TokenBucket | undefined
  readonly #anonymous: AnonymousPublishes | undefined
  readonly #caller: PublishingCaller

  /** @param publishes rate of the connection; left out for no limit */
  constructor(
    { publishes, anonymousPublishes }: { publishes?: Rate | undefined } & Pick<PublishRates, 'anonymousPublishes'>,
    caller: PublishingCaller,
  ) {
    this.#bucket = publishes && new TokenBucket(publishes)
    this.#anonymous = anonymousPublishes
    this.#caller = caller
  }

  /** Milliseconds until a message may be published. */
  get wait(): number {
    return Math.max(this.#bucket?.wait() ?? 0, anonymousWait(this.#anonymous, this.#caller))
  }

  spend(message: Pick<Message, 'topic' | 'payload' | 'properties'>): void {
    this.#bucket?.take()
    countAnonymous(this.#anonymous, this.#caller, 1, sizeOf(message))
  }
}

/** @throws {GatewayError} `publishing-too-fast` */
export function requireNoWait(milliseconds: number): void {
  if (milliseconds > 0) throw new GatewayError('publishing-too-fast', { retryAfter: Math.ceil(milliseconds / 1000) })
}

/** Milliseconds until a caller without a user may publish again; 0 for any other. */
function anonymousWait(limits: AnonymousPublishes | undefined, { identity, client }: PublishingCaller): number {
  return identity.user === undefined ? (limits?.wait(client.address) ?? 0) : 0
}

/** Counts messages of a caller without a user. */
function countAnonymous(
  limits: AnonymousPublishes | undefined,
  { identity, client }: PublishingCaller,
  messages: number,
  bytes: number,
): void {
  if (identity.user === undefined) limits?.spend(client.address, messages, bytes)
}

/**
 * Publishes a message and requests its receipts. Where the quota has no room for the receipts, the message is not published.
 *
 * @param account of the requester
 * @param publish publishes the message, with a watch of its acknowledgements
 * @throws {GatewayError} rejects as `Receipts.reserve`, `publish` and `ReceiptReservation.confirm`
 */
export async function withReceipts(
  receipts: Receipts,
  { message, receipt }: Publication,
  account: string,
  publish: (acknowledgements: PublishOptions['acknowledgements']) => Promise<Event | undefined>,
): Promise<Event | undefined> {
  const reservation = receipt && receipts.reserve(message.topic, receipt, account)
  try {
    const event = await publish(
      reservation && {
        within: receipt.within,
        onAcknowledged: client => reservation.acknowledged({ device: deviceOfClient(client), user: client.user }),
      },
    )
    if (event) await reservation?.confirm(event)
    return event
  } finally {
    reservation?.cancel()
  }
}
