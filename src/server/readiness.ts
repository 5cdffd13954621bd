import { setTimeout } from 'node:timers/promises'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'

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

/**
 * Probes one broker, one probe at a time, and caches the result for a second.
 *
 * @returns the state of the broker; never rejects, and takes 3 s at most
 */
export function readinessCheck(probed: ProbedBroker, log: Logger): () => Promise<BrokerReport> {
  const { name: broker } = probed
  let running: Promise<BrokerReport> | undefined
  let last: { readonly report: BrokerReport; readonly at: number } | undefined
  let wasReady: boolean | undefined
  const probe = async (): Promise<BrokerReport> => {
    try {
      return { broker, roundTripMs: Math.round((await probed.probe()) * 10) / 10 }
    } catch (error) {
      const detail = detailOf(error, broker)
      log.debug({ broker, detail }, 'The readiness probe failed')
      return { broker, detail }
    }
  }
  return async () => {
    if (last && performance.now() - last.at < freshFor) return last.report
    running ??= probe().finally(() => {
      running = undefined
    })
    const late = { broker, detail: `no answer within ${probeLimit / 1000} s` }
    const report = await Promise.race([running, setTimeout(probeLimit, late, { ref: false })])
    last = { report, at: performance.now() }
    const isReady = report.detail === undefined
    if (!isReady && wasReady !== false) log.warn(report, `The broker is not ready: ${report.detail}`)
    else if (isReady && wasReady === false) log.info(report, 'The broker is ready again')
    wasReady = isReady
    return report
  }
}

/** The reason of a failed probe, without the broker's address, which stands beside it. */
function detailOf(error: unknown, broker: string): string {
  if (error instanceof GatewayError) return error.detailedText.replace(`${broker}: `, '')
  return error instanceof Error ? error.message : String(error)
}
