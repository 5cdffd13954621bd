import type { PeerCertificate } from 'node:tls'

/** What is needed of a TLS connection that was asked for a certificate (`tls.TLSSocket`). */
export interface CertifiedSocket {
  /** Whether a CA of the list signed it, and it is valid and not revoked. */
  readonly authorized: boolean
  readonly authorizationError?: Error | string | undefined
  /** An empty object where the client has none. */
  getPeerCertificate(): PeerCertificate | Record<string, never>
}

/** A client's certificate, as far as it says who it is. */
export interface ClientCertificate {
  /** The user name; `undefined` where the certificate has none, or several. */
  readonly user: string | undefined
  /** Why it is not valid; `undefined` where it is. */
  readonly problem: string | undefined
  /** Until when it is valid, in milliseconds since 1970. */
  readonly expires: number
}

/**
 * Reads the certificate of a TLS connection; `undefined` where the client has none.
 *
 * @param user what is the user name: the common name, which then has to be the only one; or the first alternative name
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
 * The first e-mail address, URI, DNS name or IP address of `DNS:a.example, email:bob@b.example`. Node writes a name that
 * could be taken for several as JSON, so a comma inside quotes is part of it.
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
