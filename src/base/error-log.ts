import type { Logger } from './log.js'

/** How long further errors are only counted, in milliseconds. */
const interval = 10_000

/** Logs errors that may occur for each message, as on a full disk: the first, and then their number every 10 s. */
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
