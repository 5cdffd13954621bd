import type { FairQuota } from '../../base/fair-quota.js'

/** Packet identifiers that all clients may have whose PUBREL has not come, at some 100 bytes each; an account has half at most. */
export const maxUnreleased = 1_000_000

/**
 * The packet identifiers of one connection whose PUBREL has not come (Aedes' `_inboundInflight`). The number of all is shared by accounts.
 */
export class UnreleasedIds extends Set<number> {
  readonly #quota: FairQuota
  readonly #account: string
  #closed = false

  constructor(quota: FairQuota, account: string) {
    super()
    this.#quota = quota
    this.#account = account
  }

  /** Whether one more identifier fits, or this one is among them. */
  fits(id: number): boolean {
    return this.has(id) || this.#quota.exceededBy(this.#account, 1) === undefined
  }

  override add(id: number): this {
    if (!this.#closed && !this.has(id)) this.#quota.take(this.#account, 1)
    return super.add(id)
  }

  override delete(id: number): boolean {
    const isKnown = super.delete(id)
    if (isKnown && !this.#closed) this.#quota.giveBack(this.#account, 1)
    return isKnown
  }

  /** Call when the connection is over. */
  override clear(): void {
    if (!this.#closed) this.#quota.giveBack(this.#account, this.size)
    this.#closed = true
    super.clear()
  }
}
