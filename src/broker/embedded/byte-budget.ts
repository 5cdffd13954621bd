import { FairQuota } from '../../base/fair-quota.js'

interface Waiting {
  readonly key: string
  readonly amount: number
  readonly begin: () => void
}

/** Bounds the bytes in memory, with a fair share for each key; a reservation waits for room. */
export class ByteBudget {
  readonly #quota: FairQuota
  #waiting: Waiting[] = []

  constructor(max: number) {
    this.#quota = new FairQuota(max)
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /**
   * Reserves `bytes` for `key`, or half of the budget where that is less, as soon as there is room. Never rejects.
   *
   * @returns releases them; to be called once
   */
  async reserve(key: string, bytes: number): Promise<() => void> {
    const amount = Math.min(bytes, this.#quota.half)
    if (this.#quota.exceededBy(key, amount) === undefined) this.#quota.take(key, amount)
    else await new Promise<void>(begin => this.#waiting.push({ key, amount, begin }))
    return () => {
      this.#quota.giveBack(key, amount)
      this.#begin()
    }
  }

  /** Grants waiting reservations for which there is room, in order. */
  #begin(): void {
    this.#waiting = this.#waiting.filter(({ key, amount, begin }) => {
      if (this.#quota.exceededBy(key, amount) !== undefined) return true
      this.#quota.take(key, amount)
      begin()
      return false
    })
  }
}
