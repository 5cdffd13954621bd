import type { FairQuota } from '../../base/fair-quota.js'

/** Packet identifiers of all clients that wait for PUBREL, at some 100 bytes each; an account has at most half. */
export const maxUnreleased = 1_000_000

/**
 * Packet identifiers of one connection that wait for PUBREL (Aedes' `_inboundInflight`). Accounts share the number of all.
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

  /** Whether another identifier fits, or this one is known. */
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

  /** Call when the connection is closed. */
  override clear(): void {
    if (!this.#closed) this.#quota.giveBack(this.#account, this.size)
    this.#closed = true
    super.clear()
  }
}
