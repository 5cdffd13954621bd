import { FairQuota } from '../../base/fair-quota.js'

interface Waiting {
  readonly key: string
  readonly amount: number
  readonly begin: () => void
}

/** Bytes that may be in memory at the same time, shared fairly by keys; whoever finds no room waits for it. */
export class ByteBudget {
  readonly #quota: FairQuota
  #waiting: Waiting[] = []

  constructor(max: number) {
    this.#quota = new FairQuota(max)
  }

  /** Those who wait for room. */
  get waiting(): number {
    return this.#waiting.length
  }

  /**
   * Takes `bytes` for `key`, or half of all where that is less, when there is room. Never rejects.
   *
   * @returns gives them back; to be called once
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

  /** Lets those begin for whom there is room now, the first first. */
  #begin(): void {
    this.#waiting = this.#waiting.filter(({ key, amount, begin }) => {
      if (this.#quota.exceededBy(key, amount) !== undefined) return true
      this.#quota.take(key, amount)
      begin()
      return false
    })
  }
}
