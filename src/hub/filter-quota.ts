import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'

/** Bytes that a filter takes besides its characters, about: in the hub's index, in that of who listens, and with its subscriber. */
const overhead = 512

/** Topic filters of all subscribers of push, and the bytes that they take. */
export interface FilterFigures {
  readonly bytes: number
  /** Subscriptions that were refused. */
  readonly refused: number
}

/** What one subscriber holds of the quota. */
export interface HeldFilters {
  /**
   * It has these filters from now on.
   *
   * @throws {GatewayError} `filters-too-many`; it has what it had then
   */
  change(filters: Iterable<string>): void
  /** Idempotent. */
  release(): void
}

/** The topic filters of event streams, polls and sockets in bytes, which users and addresses share as `FairQuota` does. */
export class FilterQuota {
  readonly #quota: FairQuota
  #refused = 0

  /** @param maxBytes of all filters, with 512 for each */
  constructor(maxBytes: number) {
    this.#quota = new FairQuota(maxBytes)
  }

  get figures(): FilterFigures {
    return { bytes: this.#quota.total, refused: this.#refused }
  }

  /**
   * Counts the filters of one subscriber.
   *
   * @param account the quota key of its user or network
   * @throws {GatewayError} `filters-too-many`
   */
  hold(account: string, filters: Iterable<string>): HeldFilters {
    let held = 0
    const change = (wanted: Iterable<string>): void => {
      const size = sizeOf(wanted)
      if (size > held && this.#quota.exceededBy(account, size - held)) {
        this.#refused++
        throw new GatewayError('filters-too-many')
      }
      this.#quota.giveBack(account, held)
      this.#quota.take(account, size)
      held = size
    }
    change(filters)
    return { change, release: () => change([]) }
  }
}

function sizeOf(filters: Iterable<string>): number {
  let size = 0
  for (const filter of filters) size += overhead + filter.length
  return size
}
