import type { Logger } from '../base/log.js'

/** A request, in the log. */
export interface LoggedRequest {
  readonly peer: string
  readonly method: string
  /** Without the query, which may hold secrets. */
  readonly path: string
}

/**
 * Logs a request, at level debug.
 *
 * @param ms duration of the response, in milliseconds
 */
export function logRequest(log: Logger, request: LoggedRequest, status: number, ms: number): void {
  if (log.isLevelEnabled('debug')) log.debug({ ...request, status, ms: Math.round(ms * 10) / 10 }, 'request')
}
