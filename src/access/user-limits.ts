import { GatewayError } from '../base/errors.js'

/** Limits the open connections of each user. */
export class UserLimits {
  readonly #max: number
  readonly #open = new Map<string, number>()

  /** @param max connections of one user; `off` for no limit */
  constructor(max: number | 'off') {
    this.#max = max === 'off' ? Number.POSITIVE_INFINITY : max
  }

  /** Users with an open connection. */
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
    if (count >= this.#max) throw new GatewayError('too-many-from-user')
    this.#open.set(user, count + 1)

    let released = false
    return () => {
      if (released) return
      released = true
      const left = (this.#open.get(user) ?? 1) - 1
      if (left === 0) this.#open.delete(user)
      else this.#open.set(user, left)
    }
  }
}

function nothing(): void {}
