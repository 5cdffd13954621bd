import type { PushError } from './api.js'

/**
 * What follows from a failure.
 *
 * - `blocked`: this transport does not get through; another one may.
 * - `busy`: the gateway says: not now; or whoever makes tickets could not be reached. No other transport helps.
 * - `refused`: the gateway says: not so. Trying again helps nobody, except with fresh credentials.
 */
export type FailureKind = 'blocked' | 'busy' | 'refused'

/** What a problem (RFC 9457), an error on a socket or an `end` says. */
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
  /** The gateway's wish, in milliseconds. */
  declare readonly retryAfter: number

  /** Without more, it is that of a network. */
  constructor(
    kind: FailureKind = 'blocked',
    reason = 'network',
    more: Problem & { retryAfter?: number; cause?: unknown } = {},
  ) {
    super(more.detail ?? reason)
    Object.assign(this, { status: 0, retryAfter: 0 }, more, { name: 'PushError', kind, reason })
  }
}

/** The reason of a gateway where nothing is pushed: it passes once the configuration is changed, and not within a request's time. */
export const pushOff = 'push-off'

/** Any error as a failure: what is none comes from the network, or from something in between that speaks otherwise. */
export function failureFrom(error: unknown): Failure {
  return error instanceof Failure ? error : new Failure('blocked', undefined, { cause: error })
}

/** The failure that the gateway has described. */
export function failureOf(problem: Problem, retryAfter = 0): Failure {
  const { status = 0, reason = `http-${status}` } = problem
  // 409: the same is under way. 408, 409, 429 and 5xx pass.
  const kind = /^(5|40[89]|429)/.test(`${status}`) ? 'busy' : 'refused'
  return new Failure(kind, reason, { ...problem, retryAfter })
}

/** The failure that an HTTP answer is. What is no problem of the gateway's comes from something in between. */
export async function failureOfResponse(response: Response): Promise<Failure> {
  const { status, headers } = response
  const retryAfter = (Number(headers.get('retry-after')) || 0) * 1000
  if (headers.get('content-type')?.includes('problem+json')) {
    const problem: Problem = await response.json()
    // A gateway that pushes nothing may be configured to; any other 404 is not of the API.
    if (problem.reason === pushOff) return new Failure('busy', pushOff, { ...problem, retryAfter })
    if (status !== 404) return failureOf({ ...problem, status }, retryAfter)
  }
  return new Failure('blocked', `http-${status}`, { status, retryAfter })
}
