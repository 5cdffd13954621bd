import type { Clock } from '../../base/clock.js'
import type { Alert } from './alert.js'

export type BrokerEvent = 'broker-away' | 'broker-back'

export interface BrokerWatchOptions {
  /** Whether push is connected to the broker. */
  readonly isConnected: () => boolean
  /** Whether `broker-away` was reported before, and `broker-back` was not. */
  readonly isReported: boolean
  readonly onEvent: (event: BrokerEvent, alert: Alert) => void
  readonly clock: Clock
}

/** Interval of the checks, and time without a broker before it is reported; in milliseconds. */
const [interval, reportAfter] = [5000, 30_000]

/** Reports a broker that is away for long, and its return. It counts checks, because the clock may be set meanwhile. */
export class BrokerWatch {
  readonly #options: BrokerWatchOptions
  /** Failed checks in a row. */
  #failures = 0
  #isReported: boolean
  /** Whether the time without a broker is known. */
  #isTimed: boolean
  #stopTimer: () => void

  constructor(options: BrokerWatchOptions) {
    this.#options = options
    this.#isReported = options.isReported
    this.#isTimed = !options.isReported
    this.#stopTimer = options.clock.after(interval, this.#check)
  }

  readonly #check = (): void => {
    const { isConnected, clock } = this.#options
    if (isConnected()) {
      const after = this.#isTimed ? ` after ${seconds(this.#failures * interval)}` : ''
      if (this.#isReported) this.#report('broker-back', `The broker is back${after}.`)
      this.#failures = 0
      this.#isReported = false
      this.#isTimed = true
    } else {
      const silence = this.#failures++ * interval
      if (!this.#isReported && silence >= reportAfter) {
        this.#isReported = true
        this.#report('broker-away', `The broker has been unavailable for ${seconds(silence)}.`)
      }
    }
    this.#stopTimer = clock.after(interval, this.#check)
  }

  #report(event: BrokerEvent, text: string): void {
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
