import type { Logger } from '../base/log.js'

/** A request, as the log names it. */
export interface LoggedRequest {
  readonly peer: string
  readonly method: string
  /** Without the query, which may hold what is nobody's business. */
  readonly path: string
}

/**
 * Writes the line that each request has in the log, at level debug.
 *
 * @param ms how long the answer took, in milliseconds
 */
export function logRequest(log: Logger, request: LoggedRequest, status: number, ms: number): void {
  if (log.isLevelEnabled('debug')) log.debug({ ...request, status, ms: Math.round(ms * 10) / 10 }, 'request')
}
