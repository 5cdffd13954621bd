import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'

/** Approximate bytes of a filter without its characters: in the hub's index, in that of presence, and in its subscriber. */
const overhead = 512

/** Bytes of the topic filters of all subscribers. */
export interface FilterFigures {
  readonly bytes: number
  /** Refused subscriptions. */
  readonly refused: number
}

/** The quota of one subscriber. */
export interface HeldFilters {
  /**
   * Replaces its filters.
   *
   * @throws {GatewayError} `filters-too-many`; its filters stay as they were
   */
  change(filters: Iterable<string>): void
  /** Idempotent. */
  release(): void
}

/** Quota of the topic filters of event streams, polls and sockets, in bytes, shared by users and networks as in `FairQuota`. */
export class FilterQuota {
  readonly #quota: FairQuota
  #refused = 0

  /** @param maxBytes of all filters, each with 512 more */
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
