import type { Logger } from './log.js'

/** Time in which further errors are counted instead of logged, in milliseconds. */
const interval = 10_000

/** Logs errors that may come for each message, as those of a full disk: the first, and then every 10 s the number of the others. */
export class ErrorLog {
  readonly #log: Logger
  readonly #text: string
  #suppressed: number | undefined

  constructor(log: Logger, text: string) {
    this.#log = log
    this.#text = text
  }

  write(error: unknown): void {
    if (this.#suppressed !== undefined) {
      this.#suppressed++
      return
    }
    this.#suppressed = 0
    this.#log.error({ err: error }, this.#text)
    setTimeout(() => {
      const count = this.#suppressed ?? 0
      this.#suppressed = undefined
      if (count > 0) this.#log.error({ count }, `${this.#text}, ${count} more times in 10 seconds`)
    }, interval).unref()
  }
}
