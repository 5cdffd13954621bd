import type { PeerCertificate } from 'node:tls'

/** The parts of a `tls.TLSSocket` that are read. */
export interface CertifiedSocket {
  /** Whether a configured CA signed the certificate, and it is neither expired nor revoked. */
  readonly authorized: boolean
  readonly authorizationError?: Error | string | undefined
  /** An empty object without a certificate. */
  getPeerCertificate(): PeerCertificate | Record<string, never>
}

/** The identity in a client's certificate. */
export interface ClientCertificate {
  /** The user name; `undefined` if the certificate has none, or several. */
  readonly user: string | undefined
  /** Why it is invalid; `undefined` if it is valid. */
  readonly problem: string | undefined
  /** Its end of validity, in milliseconds since 1970. */
  readonly expires: number
}

/**
 * Reads the client's certificate of a TLS connection; `undefined` without one.
 *
 * @param user the source of the user name: the common name, which must be the only one; or the first alternative name
 */
export function readClientCertificate(socket: CertifiedSocket, user: 'cn' | 'san'): ClientCertificate | undefined {
  const certificate = socket.getPeerCertificate()
  if (certificate === null || certificate.subject === undefined) return undefined
  const name = user === 'cn' ? certificate.subject.CN : firstAlternativeName(certificate.subjectaltname)
  const problem = socket.authorized ? undefined : String(socket.authorizationError ?? 'not signed by a known CA')
  return {
    user: typeof name === 'string' && name !== '' ? name : undefined,
    problem,
    expires: Date.parse(certificate.valid_to),
  }
}

/**
 * Returns the first e-mail address, URI, DNS name or IP address of `DNS:a.example, email:bob@b.example`. Node writes an ambiguous name as
 * JSON, so that a comma inside quotes is part of it.
 */
function firstAlternativeName(names: string | undefined): string | undefined {
  for (const [, kind = '', quoted, plain] of (names ?? '').matchAll(
    /(?:^|, )([^:,"]+):(?:("(?:[^"\\]|\\.)*")|([^,]*))/g,
  )) {
    if (!['email', 'URI', 'DNS', 'IP Address'].includes(kind)) continue
    return quoted === undefined ? plain : unquote(quoted)
  }
  return undefined
}

function unquote(text: string): string | undefined {
  try {
    return String(JSON.parse(text))
  } catch {
    return undefined
  }
}
