import type { Logger } from '../base/log.js'

/** Parts that were opened so far, to be closed in reverse order. */
export class CloseStack {
  readonly #parts: { close(): unknown }[] = []
  readonly #log: Logger

  constructor(log: Logger) {
    this.#log = log
  }

  add<T extends { close(): unknown }>(part: T): T {
    this.#parts.push(part)
    return part
  }

  /** Closes every part, also after one that fails to close. Idempotent. */
  async close(): Promise<void> {
    for (const part of this.#parts.splice(0).reverse()) {
      try {
        await part.close()
      } catch (error) {
        this.#log.error({ err: error }, 'Failed to close a part of the gateway')
      }
    }
  }
}
