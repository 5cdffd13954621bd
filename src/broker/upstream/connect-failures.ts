import { connectErrorCause, explainConnectError, withoutTls } from '../../base/connect-errors.js'
import { GatewayError } from '../../base/errors.js'
import type { Address } from './addresses.js'

/** No answer in time, of any kind. */
export class Silence extends Error {
  readonly isInTls: boolean

  /** @param isInTls whether TCP was connected, and TLS was not */
  constructor(message: string, isInTls: boolean) {
    super(message)
    this.isInTls = isInTls
  }
}

/** The broker ended the connection while TLS was being negotiated, as one does that does not speak it. */
export class TlsHandshakeEnded extends Error {
  readonly code = 'TLS_HANDSHAKE_ENDED'
}

/** One address, and why it could not be connected to. */
export interface Failure {
  readonly address: Address
  readonly error: unknown
}

/**
 * The ending that a connection has when every address failed: its detailed text names each address and the cause, the text for any
 * client only the cause.
 */
export function endingOf(failures: readonly Failure[]): GatewayError {
  const told = failures.find(({ error }) => error instanceof GatewayError)
  if (told) return GatewayError.from(told.error)
  const silent = failures.every(({ error }) => error instanceof Silence)
  const reasons = failures.map(({ address, error }) => `${address.name}: ${explainConnectError(error)}`)
  const notTls = failures.some(({ error }) => error instanceof Silence && error.isInTls)
  const causes = [...new Set(failures.flatMap(({ error }) => connectErrorCause(error) ?? []))]
  return new GatewayError(silent ? 'broker-timeout' : 'broker-refused', {
    ...(causes.length === 0 ? {} : { hint: causes.join('; ') }),
    detail: `${reasons.join('; ')}${notTls ? ` to the TLS handshake; ${withoutTls}` : ''}`,
    cause: new Error(reasons.join('; '), { cause: failures.at(-1)?.error }),
  })
}
