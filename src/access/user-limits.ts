import { GatewayError } from '../base/errors.js'
import { noOtherCounts, type OtherCounts } from '../base/other-counts.js'

/** Limits the open connections of each user. */
export class UserLimits {
  #max = Number.POSITIVE_INFINITY
  readonly #open = new Map<string, number>()
  readonly #others: OtherCounts

  /**
   * @param max connections of one user; `off` for no limit
   * @param others connections of other processes, by user
   */
  constructor(max: number | 'off', others: OtherCounts = noOtherCounts) {
    this.#others = others
    this.configure(max)
  }

  /** Applies another maximum; `off` for no limit. Open connections stay, also beyond it. */
  configure(max: number | 'off'): void {
    this.#max = max === 'off' ? Number.POSITIVE_INFINITY : max
  }

  /** Users with an open connection of this process. */
  get users(): number {
    return this.#open.size
  }

  /**
   * Admits a connection of `user`; any number without a user.
   *
   * @returns a function that releases it; idempotent
   * @throws {GatewayError} `too-many-from-user`
   */
  admit(user: string | undefined): () => void {
    if (user === undefined) return nothing
    const count = this.#open.get(user) ?? 0
    if (count + this.#others.of(user) >= this.#max) throw new GatewayError('too-many-from-user')
    this.#set(user, count + 1)

    let released = false
    return () => {
      if (released) return
      released = true
      this.#set(user, (this.#open.get(user) ?? 1) - 1)
    }
  }

  #set(user: string, count: number): void {
    if (count === 0) this.#open.delete(user)
    else this.#open.set(user, count)
    this.#others.set(user, count)
  }
}

function nothing(): void {}
