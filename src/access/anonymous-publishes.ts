import type { LimitsConfig } from '../config/schema.js'
import { unixAddress } from './addresses.js'
import type { ShareLimit } from './limit-exchange.js'
import { networkOf } from './limits.js'
import { type OptionalRate, RateLimits } from './rate-limits.js'

export interface AnonymousRates {
  /** Default: no limit. */
  readonly messages?: OptionalRate | undefined
  /** Default: no limit. */
  readonly bytes?: OptionalRate | undefined
}

export interface AnonymousPublishesOptions extends AnonymousRates {
  readonly share?: ShareLimit | undefined
  readonly now?: () => number
}

/**
 * Rate limits of messages, and of their bytes, that clients without a user name publish from one address (IPv6: a /64) over all
 * transports. Peers on a Unix socket, as a rule a reverse proxy, are not limited.
 */
export class AnonymousPublishes {
  readonly #messages: RateLimits
  readonly #bytes: RateLimits

  constructor({ messages = noRate, bytes = noRate, share, now }: AnonymousPublishesOptions) {
    this.#messages = new RateLimits({ ...messages, ...(now && { now }) })
    this.#bytes = new RateLimits({ ...bytes, ...(now && { now }) })
    share?.('anonymousMessages', this.#messages)
    share?.('anonymousBytes', this.#bytes)
  }

  /** Applies other rates. */
  configure({ messages = noRate, bytes = noRate }: AnonymousRates): void {
    this.#messages.configure(messages)
    this.#bytes.configure(bytes)
  }

  /** Milliseconds until the address may publish again; 0 for now. */
  wait(address: string): number {
    const key = networkOf(address)
    // A message may have more bytes than the burst: it is accepted if the bucket is not in debt, and counted afterwards.
    return Math.max(this.#messages.wait(key), this.#bytes.wait(key, 0))
  }

  /** Counts published messages. @returns milliseconds until the address may publish again; 0 for now */
  spend(address: string, messages: number, bytes: number): number {
    const key = networkOf(address)
    if (key === unixAddress) return 0
    return Math.max(this.#messages.spend(key, messages), this.#bytes.spend(key, bytes))
  }
}

const noRate: OptionalRate = { perSecond: 'off', burst: 1 }

/** Burst of bytes, in seconds of their rate. */
const bytesBurst = 16

/** The rates of the configuration. */
export function anonymousRates({
  anonymousPublishesPerSecond,
  anonymousPublishesBurst,
  anonymousPublishBytesPerSecond: bytes,
}: LimitsConfig): AnonymousRates {
  return {
    messages: { perSecond: anonymousPublishesPerSecond, burst: anonymousPublishesBurst },
    bytes: bytes === 'off' ? undefined : { perSecond: bytes, burst: bytesBurst * bytes },
  }
}
