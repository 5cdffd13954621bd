import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'

/** Bounds of the publishes that are in progress. */
export interface PublishQuotaOptions {
  readonly maxCount: number
  /** Bytes of topics and payloads; a publish while no other is in progress is admitted whatever its size. */
  readonly maxBytes: number
}

/** Counts publishes in progress: each publisher may have half of what is left, see `FairQuota`. */
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
   * @param by user or address; `undefined` for mqway itself
   * @throws {Ending} `publishing-too-fast` where `by` has too many in progress, `broker-away` where there are too many in all
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
    // One that is alone may have any size.
    if (counts.total === 0) return
    if (counts.total >= counts.max || sizes.total + size > sizes.max) {
      throw new GatewayError('broker-away', { hint: 'too many messages are on their way to it', retryAfter: 1 })
    }
    // One message of everybody may have any size for which there is room.
    if (by === undefined || counts.of(by) === 0) return
    if (!counts.exceededBy(by, 1) && !sizes.exceededBy(by, size)) return
    throw new GatewayError('publishing-too-fast', { hint: 'too many of your messages are on their way to the broker' })
  }
}
