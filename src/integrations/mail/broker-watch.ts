import type { Clock } from '../../base/clock.js'
import type { Alert } from './alert.js'

/** What may happen to the broker. */
export type BrokerEvent = 'broker-away' | 'broker-back'

export interface BrokerWatchOptions {
  /** Whether push has its session with the broker. */
  readonly isConnected: () => boolean
  readonly onEvent: (event: BrokerEvent, occurrence: Alert) => void
  readonly clock: Clock
}

/** How often it is looked, and how long the broker may be away without a word; in milliseconds. */
const [interval, patience] = [5000, 30_000]

/** Notices that the broker is away for long, and that it is back; by its looks, as clocks are put right. */
export class BrokerWatch {
  readonly #options: BrokerWatchOptions
  /** How often in a row it was missed. */
  #missed = 0
  #isTold = false
  #stopTimer: () => void

  constructor(options: BrokerWatchOptions) {
    this.#options = options
    this.#stopTimer = options.clock.after(interval, this.#look)
  }

  readonly #look = (): void => {
    const { isConnected, clock } = this.#options
    if (isConnected()) {
      if (this.#isTold) this.#tell('broker-back', `The broker is back after ${seconds(this.#missed * interval)}.`)
      this.#missed = 0
      this.#isTold = false
    } else {
      const silence = this.#missed++ * interval
      if (!this.#isTold && silence >= patience) {
        this.#isTold = true
        this.#tell('broker-away', `The broker has not been there for ${seconds(silence)}.`)
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
