import { execFileSync } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Files of a certificate and its key. */
export interface CertificateFiles {
  readonly cert: string
  readonly key: string
}

/** A CA of a test's own, and what it has signed. */
export interface TestCa {
  readonly directory: string
  readonly ca: string
  readonly server: CertificateFiles
  readonly client: CertificateFiles
  /** Makes a further certificate, or replaces it; `altName` is such as `DNS:a.test`. */
  sign(name: string, altName: string): CertificateFiles
}

/** Makes a CA, a server certificate for `broker.test`, and a client certificate, with openssl. */
export function makeCertificates(): TestCa {
  const directory = mkdtempSync(join(tmpdir(), 'mqway-certificates-'))
  const file = (name: string): string => join(directory, name)
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { stdio: 'pipe' })
  }
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  openssl(...request, '-subj', '/CN=test CA', '-keyout', file('ca.key'), '-out', file('ca.pem'))
  const signed = (name: string, altName: string): CertificateFiles => {
    const own = { cert: file(`${name}.pem`), key: file(`${name}.key`) }
    const ca = ['-CA', file('ca.pem'), '-CAkey', file('ca.key')]
    const extensions = ['-addext', `subjectAltName=${altName}`, '-addext', 'basicConstraints=critical,CA:FALSE']
    openssl(...request, ...ca, ...extensions, '-subj', `/CN=${name}`, '-keyout', own.key, '-out', own.cert)
    return own
  }
  return {
    directory,
    ca: file('ca.pem'),
    server: signed('server', 'DNS:broker.test'),
    client: signed('client', 'DNS:client.test'),
    sign: signed,
  }
}
