import type { PushError } from './api.js'

/**
 * The consequence of a failure.
 *
 * - `blocked`: this transport does not connect; another one may.
 * - `busy`: a temporary refusal, or the page's tickets are unavailable. Another transport does not help.
 * - `refused`: a permanent refusal. Another attempt does not help, except with fresh credentials.
 */
export type FailureKind = 'blocked' | 'busy' | 'refused'

/** The fields of a problem (RFC 9457), of an error on a socket and of an `end`. */
export interface Problem {
  readonly status?: number
  readonly detail?: string
  readonly reason?: string
  readonly parameter?: string
}

/** Why an attempt or a request failed. */
export class Failure extends Error implements PushError {
  declare readonly kind: FailureKind
  declare readonly reason: string
  declare readonly status: number
  declare readonly detail?: string
  declare readonly parameter?: string
  /** From the gateway's `Retry-After`, in milliseconds. */
  declare readonly retryAfter: number

  /** By default a network error. */
  constructor(
    kind: FailureKind = 'blocked',
    reason = 'network',
    more: Problem & { retryAfter?: number; cause?: unknown } = {},
  ) {
    super(more.detail ?? reason)
    Object.assign(this, { status: 0, retryAfter: 0 }, more, { name: 'PushError', kind, reason })
  }
}

/** The reason of a gateway without push: temporary for connections, because the configuration may change, but not for requests. */
export const pushOff = 'push-off'

/** Converts any error: other errors come from the network, or from a proxy in between. */
export function failureFrom(error: unknown): Failure {
  return error instanceof Failure ? error : new Failure('blocked', undefined, { cause: error })
}

/** The failure that a problem describes. */
export function failureOf(problem: Problem, retryAfter = 0): Failure {
  const { status = 0, reason = `http-${status}` } = problem
  // 408, 409 (the same request is in progress), 429 and 5xx are temporary.
  const kind = /^(5|40[89]|429)/.test(`${status}`) ? 'busy' : 'refused'
  return new Failure(kind, reason, { ...problem, retryAfter })
}

/** The failure of an HTTP response. A response without a problem comes from a proxy in between. */
export async function failureOfResponse(response: Response): Promise<Failure> {
  const { status, headers } = response
  const retryAfter = (Number(headers.get('retry-after')) || 0) * 1000
  if (headers.get('content-type')?.includes('problem+json')) {
    const problem: Problem = await response.json()
    // Any other 404 is not from the API.
    if (problem.reason === pushOff) return new Failure('busy', pushOff, { ...problem, retryAfter })
    if (status !== 404) return failureOf({ ...problem, status }, retryAfter)
  }
  return new Failure('blocked', `http-${status}`, { status, retryAfter })
}
