import type { ConnectionLog } from '../base/connection-log.js'
import type { ErrorReason, GatewayError } from '../base/errors.js'

/** Milliseconds in which equal refusals are counted instead of logged. */
const interval = 10_000

/** Texts that are counted at a time; refusals with further ones are logged each. */
const maxKinds = 100

/** Reasons that refuse every client while a broker is down. */
const repeated: ReadonlySet<ErrorReason> = new Set(['broker-refused', 'broker-timeout', 'broker-away'])

interface Kind {
  readonly log: ConnectionLog
  readonly error: GatewayError
  suppressed: number
}

/**
 * Logs refused connections, one line each. For those refused because of the broker: one line for the first, and every 10 s one with the
 * number of the others.
 */
export class RefusalLog {
  readonly #kinds = new Map<string, Kind>()

  write(log: ConnectionLog, error: GatewayError, fields: object = {}): void {
    if (this.#isCounted(log, error)) return
    log[error.level]({ ...fields, ...error.logFields }, error.detailedText)
  }

  #isCounted(log: ConnectionLog, error: GatewayError): boolean {
    if (!repeated.has(error.reason)) return false
    const key = `${error.reason} ${error.detailedText}`
    const known = this.#kinds.get(key)
    if (known) known.suppressed++
    else if (this.#kinds.size < maxKinds) this.#open(key, { log, error, suppressed: 0 })
    return known !== undefined
  }

  #open(key: string, kind: Kind): void {
    this.#kinds.set(key, kind)
    setTimeout(() => {
      this.#kinds.delete(key)
      if (kind.suppressed > 0) this.#writeCount(key, kind)
    }, interval).unref()
  }

  /** Logs the number of further connections, in the log of the first. */
  #writeCount(key: string, { log, error, suppressed }: Kind): void {
    const text = `${error.detailedText} (${suppressed} more connections in ${interval / 1000} s)`
    log[error.level]({ ...error.logFields, suppressed }, text)
    if (this.#kinds.size < maxKinds) this.#open(key, { log, error, suppressed: 0 })
  }
}
