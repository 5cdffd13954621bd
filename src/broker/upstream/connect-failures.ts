import { connectErrorCause, explainConnectError, withoutTls } from '../../base/connect-errors.js'
import { GatewayError } from '../../base/errors.js'
import type { Address } from './addresses.js'

export class ConnectTimeout extends Error {
  readonly isInTls: boolean

  /** @param isInTls whether TCP was connected and the TLS handshake was not finished */
  constructor(message: string, isInTls: boolean) {
    super(message)
    this.isInTls = isInTls
  }
}

/** The broker closed the connection during the TLS handshake, as one without TLS does. */
export class TlsHandshakeEnded extends Error {
  readonly code = 'TLS_HANDSHAKE_ENDED'
}

export interface Failure {
  readonly address: Address
  readonly error: unknown
}

/**
 * The error when every address failed. Its detail, for the log, names each address and cause; its text for clients only the causes.
 */
export function connectErrorOf(failures: readonly Failure[]): GatewayError {
  const own = failures.find(({ error }) => error instanceof GatewayError)
  if (own) return GatewayError.from(own.error)
  const isTimeout = failures.every(({ error }) => error instanceof ConnectTimeout)
  const reasons = failures.map(({ address, error }) => `${address.name}: ${explainConnectError(error)}`)
  const notTls = failures.some(({ error }) => error instanceof ConnectTimeout && error.isInTls)
  const causes = [...new Set(failures.flatMap(({ error }) => connectErrorCause(error) ?? []))]
  return new GatewayError(isTimeout ? 'broker-timeout' : 'broker-refused', {
    ...(causes.length === 0 ? {} : { hint: causes.join('; ') }),
    detail: `${reasons.join('; ')}${notTls ? ` to the TLS handshake; ${withoutTls}` : ''}`,
    cause: new Error(reasons.join('; '), { cause: failures.at(-1)?.error }),
  })
}
