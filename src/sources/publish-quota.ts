import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'

export interface PublishQuotaOptions {
  readonly maxCount: number
  /** Bytes of topics and payloads; a publish while no other is in progress is admitted whatever its size. */
  readonly maxBytes: number
}

/** Counts publishes in progress, with a fair share for each publisher (see `FairQuota`). */
export class PublishQuota {
  readonly #counts: FairQuota
  readonly #sizes: FairQuota

  constructor({ maxCount, maxBytes }: PublishQuotaOptions) {
    this.#counts = new FairQuota(maxCount)
    this.#sizes = new FairQuota(maxBytes)
  }

  /**
   * Counts a publish of `size` bytes.
   *
   * @param by user or address; `undefined` for the gateway itself
   * @throws {GatewayError} `publishing-too-fast` if `by` has too many in progress, `broker-away` if there are too many in all
   */
  take(by: string | undefined, size: number): void {
    this.#requireRoom(by, size)
    this.#counts.take(by ?? '', 1)
    this.#sizes.take(by ?? '', size)
  }

  giveBack(by: string | undefined, size: number): void {
    this.#counts.giveBack(by ?? '', 1)
    this.#sizes.giveBack(by ?? '', size)
  }

  #requireRoom(by: string | undefined, size: number): void {
    const [counts, sizes] = [this.#counts, this.#sizes]
    // A single publish may have any size.
    if (counts.total === 0) return
    if (counts.total >= counts.max || sizes.total + size > sizes.max) {
      throw new GatewayError('broker-away', { hint: 'too many messages are waiting for it', retryAfter: 1 })
    }
    // A publisher's only message may have any size for which there is room.
    if (by === undefined || counts.of(by) === 0) return
    if (!counts.exceededBy(by, 1) && !sizes.exceededBy(by, size)) return
    throw new GatewayError('publishing-too-fast', { hint: 'too many of your messages are waiting for the broker' })
  }
}
