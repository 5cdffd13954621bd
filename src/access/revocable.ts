import type { Revocation } from '../base/identity.js'

/** What can be taken back, once. */
export class Revocable implements Revocation {
  readonly #watching = new Set<() => void>()
  #revoked = false

  get revoked(): boolean {
    return this.#revoked
  }

  watch(revoked: () => void): () => void {
    // Each call is one of its own, also of the same function.
    const call = (): void => revoked()
    this.#watching.add(call)
    if (this.#revoked) setImmediate(() => this.#watching.delete(call) && call())
    return () => void this.#watching.delete(call)
  }

  /** Tells all who watch. */
  revoke(): void {
    if (this.#revoked) return
    this.#revoked = true
    for (const call of this.#watching) {
      this.#watching.delete(call)
      call()
    }
  }
}
