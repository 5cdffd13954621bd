import { setTimeout } from 'node:timers/promises'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'

/** A broker that the gateway depends on. */
export interface ProbedBroker {
  readonly name: string
  /** Makes one round-trip. @returns its milliseconds; rejects with a reason that may be shown */
  probe(): Promise<number>
}

/** The state of one broker: `roundTripMs` if it responded, else `detail`. */
export interface BrokerReport {
  readonly broker: string
  readonly roundTripMs?: number
  /** The reason for which it is not ready. */
  readonly detail?: string
}

/** Milliseconds that a result is cached: one probe at most in that time. */
const freshFor = 1000

/** Timeout of a probe, in milliseconds; no second one starts before it has ended. */
const probeLimit = 3000

/** Probes one broker, one probe at a time, and caches the result for a second. */
export class ReadinessCheck {
  readonly #broker: ProbedBroker
  readonly #log: Logger
  #running: Promise<BrokerReport> | undefined
  #last: { readonly report: BrokerReport; readonly at: number } | undefined
  #wasReady: boolean | undefined

  constructor(broker: ProbedBroker, log: Logger) {
    this.#broker = broker
    this.#log = log
  }

  /** The state of the broker; never rejects, and takes 3 s at most. */
  async run(): Promise<BrokerReport> {
    if (this.#last && performance.now() - this.#last.at < freshFor) return this.#last.report
    this.#running ??= this.#probe().finally(() => {
      this.#running = undefined
    })
    const late = { broker: this.#broker.name, detail: `no answer within ${probeLimit / 1000} s` }
    const report = await Promise.race([this.#running, setTimeout(probeLimit, late, { ref: false })])
    this.#remember(report)
    return report
  }

  async #probe(): Promise<BrokerReport> {
    const broker = this.#broker.name
    try {
      const roundTripMs = await this.#broker.probe()
      return { broker, roundTripMs: Math.round(roundTripMs * 10) / 10 }
    } catch (error) {
      this.#log.debug({ broker, detail: detailOf(error, broker) }, 'The readiness probe failed')
      return { broker, detail: detailOf(error, broker) }
    }
  }

  #remember(report: BrokerReport): void {
    this.#last = { report, at: performance.now() }
    const ready = report.detail === undefined
    if (ready === this.#wasReady) return
    if (!ready) this.#log.warn(report, `The broker is not ready: ${report.detail}`)
    else if (this.#wasReady === false) this.#log.info(report, 'The broker is ready again')
    this.#wasReady = ready
  }
}

/** The reason of a failed probe, without the broker's address, which stands beside it. */
function detailOf(error: unknown, broker: string): string {
  if (error instanceof GatewayError) return error.detailedText.replace(`${broker}: `, '')
  return error instanceof Error ? error.message : String(error)
}
