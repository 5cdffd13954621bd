import type { Logger } from '../log.js'

/** A request that has been answered. */
export interface AnsweredRequest {
  readonly peer: string
  readonly method: string
  /** Without the query, which may hold what is nobody's business. */
  readonly path: string
  readonly status: number
  /** How long that took, in milliseconds. */
  readonly ms: number
}

/** Writes the line that each request has in the log, at level debug. */
export function logRequest(log: Logger, { ms, ...request }: AnsweredRequest): void {
  if (log.isLevelEnabled('debug')) log.debug({ ...request, ms: Math.round(ms * 10) / 10 }, 'request')
}
