import type { ConnectionLog } from '../base/connection-log.js'
import type { ErrorReason, GatewayError } from '../base/errors.js'

/** Time in which equal refusals are counted instead of logged, in milliseconds. */
const interval = 10_000

/** Different texts that are told apart in that time; further ones are logged each. */
const maxKinds = 100

/** Endings that every client has while a broker is down. */
const repeated: ReadonlySet<ErrorReason> = new Set(['broker-refused', 'broker-timeout', 'broker-away'])

interface Kind {
  readonly log: ConnectionLog
  readonly ending: GatewayError
  suppressed: number
}

/**
 * Logs refused connections, one line each; those refused because of the broker have one line for the first, and then one for every 10 s
 * with the number of the others.
 */
export class RefusalLog {
  readonly #kinds = new Map<string, Kind>()

  /** @param log of the connection */
  write(log: ConnectionLog, ending: GatewayError, fields: object = {}): void {
    if (this.#isCounted(log, ending)) return
    log[ending.level]({ ...fields, ...ending.logFields }, ending.detailedText)
  }

  #isCounted(log: ConnectionLog, ending: GatewayError): boolean {
    if (!repeated.has(ending.reason)) return false
    const key = `${ending.reason} ${ending.detailedText}`
    const known = this.#kinds.get(key)
    if (known) known.suppressed++
    else if (this.#kinds.size < maxKinds) this.#open(key, { log, ending, suppressed: 0 })
    return known !== undefined
  }

  #open(key: string, kind: Kind): void {
    this.#kinds.set(key, kind)
    setTimeout(() => {
      this.#kinds.delete(key)
      if (kind.suppressed > 0) this.#writeCount(key, kind)
    }, interval).unref()
  }

  /** The connection named in this line is the first of them. */
  #writeCount(key: string, { log, ending, suppressed }: Kind): void {
    const text = `${ending.detailedText} (${suppressed} more connections in ${interval / 1000} s)`
    log[ending.level]({ ...ending.logFields, suppressed }, text)
    if (this.#kinds.size < maxKinds) this.#open(key, { log, ending, suppressed: 0 })
  }
}
