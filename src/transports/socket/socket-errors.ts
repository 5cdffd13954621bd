import { STATUS_CODES } from 'node:http'
import { GatewayError } from '../../base/errors.js'
import { ParameterError } from '../../http/parameters.js'

/** The error of a message: the members of a problem (RFC 9457). */
export interface Failure {
  readonly status: number
  readonly title: string
  readonly detail: string
  readonly reason: string
  /** The member that is wrong; left out for the whole message. */
  readonly parameter?: string
  /** In seconds. */
  readonly retryAfter?: number
}

/** A message that is refused because of one of its members. */
export class RequestRefusal extends ParameterError {
  override readonly statusCode: number
  readonly reason: string

  constructor(parameter: string, { status, reason, detail }: Pick<Failure, 'status' | 'reason' | 'detail'>) {
    super(parameter, detail)
    this.statusCode = status
    this.reason = reason
  }

  /** A topic or filter without permission. */
  static ofTopic(parameter: string, topic: string): RequestRefusal {
    const {
      httpStatus: status,
      reason,
      text: detail,
    } = new GatewayError('topic-refused', { hint: topic.slice(0, 256) })
    return new RequestRefusal(parameter, { status, reason, detail })
  }
}

export function failureOf(error: unknown): Failure {
  if (error instanceof ParameterError) {
    const { statusCode: status, message: detail, parameter } = error
    const reason = error instanceof RequestRefusal ? error.reason : 'invalid-parameter'
    return { status, title: titleOf(status), detail, reason, ...(parameter !== '' && { parameter }) }
  }
  const { httpStatus: status, text: detail, reason, retryAfter } = GatewayError.from(error)
  return { status, title: titleOf(status), detail, reason, ...(retryAfter !== undefined && { retryAfter }) }
}

function titleOf(status: number): string {
  return STATUS_CODES[status] ?? 'Error'
}
