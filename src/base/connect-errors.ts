import { codeOf } from './error-code.js'

/** A hint after a TLS failure. */
export const withoutTls = 'the address of a broker without TLS begins with mqtt://'

/**
 * Returns the likely cause of a broker's closing a connection before its first packet: it expects TLS, or a client certificate, whose
 * refusal follows the handshake (TLS 1.3) and may be lost with the connection.
 *
 * @param isTls whether the connection has TLS
 */
export function silenceHint(isTls: boolean): string {
  return isTls
    ? 'does it ask for a client certificate (cert, key)?'
    : 'the address of a broker with TLS begins with mqtts://'
}

const unknownCa = 'its certificate comes from an unknown CA; name that as ca'

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
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE:
    'it refused the TLS handshake; it may ask for a client certificate (cert, key)',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name; see servername',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet; is the clock right?',
  CERT_REVOKED: 'its certificate was revoked',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is self-signed; name it, or its CA, as ca',
  SELF_SIGNED_CERT_IN_CHAIN: unknownCa,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: unknownCa,
  UNABLE_TO_GET_ISSUER_CERT: unknownCa,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: unknownCa,
  CERT_SIGNATURE_FAILURE: unknownCa,
}

/** Alerts with which a broker ends TLS because of the client's certificate; OpenSSL's names differ between versions. */
const certificateAlert =
  /ALERT_(CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_UNKNOWN|CERTIFICATE_EXPIRED)/

/** Explains why a connection to a broker failed, with the system's own message in brackets. */
export function explainConnectError(error: unknown): string {
  const first = firstOf(error)
  const explanation = connectErrorCause(first)
  return explanation === undefined ? messageOf(first) : `${explanation} (${messageOf(first)})`
}

/** The cause of a failed connection attempt; `undefined` if only the error's own message is known. */
export function connectErrorCause(error: unknown): string | undefined {
  const code = codeOf(firstOf(error))
  if (certificateAlert.test(code)) return 'it asks for another client certificate (cert, key)'
  return explanations[code]
}

/** With several addresses of a host name, the error of the first. */
function firstOf(error: unknown): unknown {
  return error instanceof AggregateError ? (error.errors[0] ?? error) : error
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
