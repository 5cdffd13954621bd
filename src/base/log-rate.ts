/** Minimum time between two lines about one key, in milliseconds. */
const interval = 60_000
/** Remembered keys; beyond, all are forgotten. */
const maxKeys = 1000

/** Limits log lines that others can cause, such as a user, to one per key and minute. */
export class LogRate {
  readonly #logged = new Map<string, number>()

  /** Whether a line may be logged now; then none about the same key may for a minute. */
  allows(key = '', now = Date.now()): boolean {
    if (now - (this.#logged.get(key) ?? Number.NEGATIVE_INFINITY) < interval) return false
    if (this.#logged.size >= maxKeys) this.#logged.clear()
    this.#logged.set(key, now)
    return true
  }
}
