import type { Clock } from '../push/receipts/clock.js'
import type { Occurrence } from './occurrence.js'

/** What may happen to the broker. */
export type BrokerEvent = 'broker-away' | 'broker-back'

export interface BrokerWatchOptions {
  /** Whether push has its session with the broker. */
  readonly isConnected: () => boolean
  readonly onEvent: (event: BrokerEvent, occurrence: Occurrence) => void
  readonly clock: Clock
}

/** How often it is looked, and how long the broker may be away without a word; in milliseconds. */
const [interval, patience] = [5000, 30_000]

/** Notices that the broker is away for long, and that it is back. */
export class BrokerWatch {
  readonly #options: BrokerWatchOptions
  /** When it was missed first; `undefined` while it is there. */
  #missed: number | undefined
  #isTold = false
  #stopTimer: () => void

  constructor(options: BrokerWatchOptions) {
    this.#options = options
    this.#stopTimer = options.clock.after(interval, this.#look)
  }

  readonly #look = (): void => {
    const { isConnected, clock } = this.#options
    const now = clock.now()
    if (isConnected()) {
      if (this.#isTold) this.#tell('broker-back', `The broker is back after ${seconds(now - (this.#missed ?? now))}.`)
      this.#missed = undefined
      this.#isTold = false
    } else {
      this.#missed ??= now
      if (!this.#isTold && now - this.#missed >= patience) {
        this.#isTold = true
        this.#tell('broker-away', `The broker has not been there for ${seconds(now - this.#missed)}.`)
      }
    }
    this.#stopTimer = clock.after(interval, this.#look)
  }

  #tell(event: BrokerEvent, text: string): void {
    const time = this.#options.clock.now()
    this.#options.onEvent(event, { id: '', topic: '', time, text, json: { event } })
  }

  close(): void {
    this.#stopTimer()
  }
}

function seconds(milliseconds: number): string {
  return `${Math.round(milliseconds / 1000)} seconds`
}
