import type { LimitsConfig } from '../config/schema.js'
import { unixAddress } from './addresses.js'
import type { ShareLimit } from './limit-exchange.js'
import { networkOf } from './limits.js'
import { type Rate, RateLimits } from './rate-limits.js'

export interface AnonymousPublishesOptions {
  /** Default: no limit. */
  readonly messages?: Rate | undefined
  /** Default: no limit. */
  readonly bytes?: Rate | undefined
  readonly share?: ShareLimit | undefined
  readonly now?: () => number
}

/**
 * Rate limits of messages, and of their bytes, that clients without a user name publish from one address (IPv6: a /64) over all
 * transports. Peers on a Unix socket, as a rule a reverse proxy, are not limited.
 */
export class AnonymousPublishes {
  readonly #messages: RateLimits | undefined
  readonly #bytes: RateLimits | undefined

  constructor({ messages, bytes, share, now }: AnonymousPublishesOptions) {
    this.#messages = messages && new RateLimits({ ...messages, ...(now && { now }) })
    this.#bytes = bytes && new RateLimits({ ...bytes, ...(now && { now }) })
    if (this.#messages) share?.('anonymousMessages', this.#messages)
    if (this.#bytes) share?.('anonymousBytes', this.#bytes)
  }

  /** Milliseconds until the address may publish again; 0 for now. */
  wait(address: string): number {
    const key = networkOf(address)
    // A message may have more bytes than the burst: it is accepted if the bucket is not in debt, and counted afterwards.
    return Math.max(this.#messages?.wait(key) ?? 0, this.#bytes?.wait(key, 0) ?? 0)
  }

  /** Counts published messages. @returns milliseconds until the address may publish again; 0 for now */
  spend(address: string, messages: number, bytes: number): number {
    const key = networkOf(address)
    if (key === unixAddress) return 0
    return Math.max(this.#messages?.spend(key, messages) ?? 0, this.#bytes?.spend(key, bytes) ?? 0)
  }
}

/** Burst of bytes, in seconds of their rate. */
const bytesBurst = 16

/** Makes the rate limits of the configuration. */
export function anonymousPublishesOf(limits: LimitsConfig, share: ShareLimit | undefined): AnonymousPublishes {
  const { anonymousPublishesPerSecond, anonymousPublishesBurst, anonymousPublishBytesPerSecond } = limits
  const [messages, bytes] = [anonymousPublishesPerSecond, anonymousPublishBytesPerSecond]
  return new AnonymousPublishes({
    messages: messages === 'off' ? undefined : { perSecond: messages, burst: anonymousPublishesBurst },
    bytes: bytes === 'off' ? undefined : { perSecond: bytes, burst: bytesBurst * bytes },
    share,
  })
}
