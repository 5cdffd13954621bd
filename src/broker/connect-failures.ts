import { Ending } from '../endings.js'
import { codeOf } from '../error-code.js'
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
export function endingOf(failures: readonly Failure[]): Ending {
  const told = failures.find(({ error }) => error instanceof Ending)
  if (told) return Ending.from(told.error)
  const silent = failures.every(({ error }) => error instanceof Silence)
  const reasons = failures.map(({ address, error }) => `${address.name}: ${explainConnectError(error)}`)
  const notTls = failures.some(({ error }) => error instanceof Silence && error.isInTls)
  const causes = [...new Set(failures.flatMap(({ error }) => explanationOf(codeOf(firstOf(error))) ?? []))]
  return new Ending(silent ? 'broker-timeout' : 'broker-refused', {
    ...(causes.length === 0 ? {} : { hint: causes.join('; ') }),
    detail: `${reasons.join('; ')}${notTls ? ` to the TLS handshake; ${withoutTls}` : ''}`,
    cause: new Error(reasons.join('; '), { cause: failures.at(-1)?.error }),
  })
}

const withoutTls = 'the address of a broker without TLS begins with mqtt://'
const unknownCa = 'its certificate comes from an unknown CA; name that as broker.ca'

const explanations: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'the host name is not known',
  ENODATA: 'the host name has no address',
  EAI_AGAIN: 'the host name could not be looked up now; is the DNS server reachable?',
  EHOSTUNREACH: 'the host is not reachable',
  ENETUNREACH: 'the network is not reachable',
  EADDRNOTAVAIL: 'the address is not reachable from here',
  ETIMEDOUT: 'the host does not answer',
  ENOENT: 'there is no such socket',
  ENOTDIR: 'there is no such socket',
  ENOTSOCK: 'the file is no socket',
  EACCES: 'access is denied; may the user of this process write to the socket?',
  EPERM: 'access is denied, perhaps by a firewall',
  EMFILE: 'this process has no file descriptors left (ulimit -n)',
  ENFILE: 'the machine has no file descriptors left',
  EAGAIN: 'more connections wait there than it has places for',
  ECONNRESET: 'it reset the connection',
  EPIPE: 'it closed the connection at once',
  TLS_HANDSHAKE_ENDED: `it ended the TLS handshake; ${withoutTls}`,
  EPROTO: 'it does not speak TLS as expected',
  ERR_SSL_WRONG_VERSION_NUMBER: `it does not speak TLS; ${withoutTls}`,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: `it does not speak TLS; ${withoutTls}`,
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'it speaks no TLS version that is supported here',
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: 'it does not take the TLS versions that are spoken here',
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: 'it refused the TLS handshake; it may ask for broker.cert and broker.key',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name; see broker.servername',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet; is the clock right?',
  CERT_REVOKED: 'its certificate was revoked',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is self-signed; name it, or its CA, as broker.ca',
  SELF_SIGNED_CERT_IN_CHAIN: unknownCa,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: unknownCa,
  UNABLE_TO_GET_ISSUER_CERT: unknownCa,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: unknownCa,
  CERT_SIGNATURE_FAILURE: unknownCa,
}

/** Alerts with which a broker ends TLS because of the client's certificate; OpenSSL's names differ between versions. */
const certificateAlert =
  /ALERT_(CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_UNKNOWN|CERTIFICATE_EXPIRED)/

/** Why a connection to a broker failed, for a person, with the system's own message in brackets. */
export function explainConnectError(error: unknown): string {
  const first = firstOf(error)
  const explanation = explanationOf(codeOf(first))
  return explanation === undefined ? messageOf(first) : `${explanation} (${messageOf(first)})`
}

function explanationOf(code: string): string | undefined {
  if (certificateAlert.test(code)) return 'it asks for another client certificate; see broker.cert and broker.key'
  return explanations[code]
}

/** Of several addresses of one host name, the failure of the first. */
function firstOf(error: unknown): unknown {
  return error instanceof AggregateError ? (error.errors[0] ?? error) : error
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
