import { GatewayError } from '../base/errors.js'

/** Counts the connections of each user that are open. What it remembers is bounded by what is open. */
export class UserLimits {
  readonly #max: number
  readonly #open = new Map<string, number>()

  /** @param max how many connections one user may have; `off` for any number */
  constructor(max: number | 'off') {
    this.#max = max === 'off' ? Number.POSITIVE_INFINITY : max
  }

  /** Users with a connection. */
  get users(): number {
    return this.#open.size
  }

  /**
   * Admits one connection of `user`; of somebody who is not known, any number.
   *
   * @returns what releases it; calling it again does nothing
   * @throws {Ending} `too-many-from-user`
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
