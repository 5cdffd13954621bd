import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import { normalizeAddress } from '../access/addresses.js'

/** Files of a certificate and its key; both may be in one file. */
export interface CertificateFiles {
  /** The server's certificate, then the chain (PEM). */
  readonly cert: string
  /** The private key, not encrypted (PEM). */
  readonly key: string
  /** The chain, if `cert` has the server's certificate only (PEM). */
  readonly chain?: string | undefined
  /** CAs of client certificates, and revocation lists (PEM); left out for no client certificates. */
  readonly clients?: { readonly ca: string; readonly crl?: string | undefined } | undefined
}

export interface Certificate {
  /** The whole chain (PEM). */
  readonly cert: string
  /** The private key (PEM). */
  readonly key: string
  /** For client certificates: one PEM block each. */
  readonly clients: { readonly ca: readonly string[]; readonly crl: readonly string[] } | undefined
  /** Such as `CN=localhost`. */
  readonly subject: string
  readonly names: readonly string[]
  /** Milliseconds since 1970. */
  readonly validFrom: number
  readonly validTo: number
}

/** A certificate or key that cannot be served. The message names the file and the reason. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError'
}

const certificateBlock = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g
const revocationBlock = /-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g
const encryptedKey = /-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED/

/**
 * Reads a certificate and its key, and checks that they match and that TLS accepts them. An expired certificate is no error: it is better than no
 * server, and is logged.
 *
 * @throws {CertificateError}
 */
export async function loadCertificate(files: CertificateFiles): Promise<Certificate> {
  const first = await readPem(files.cert, 'certificate')
  const key = files.key === files.cert ? first : await readPem(files.key, 'key')
  const [own] = parseChain(files.cert, first)
  if (own === undefined) {
    throw new CertificateError(`${files.cert} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)`)
  }
  if (!own.checkPrivateKey(parseKey(files.key, key))) {
    throw new CertificateError(
      `the key in ${files.key} is not that of the first certificate in ${files.cert} (${oneLine(own.subject)})`,
    )
  }
  const clients = files.clients && (await loadClientFiles(files.clients))
  const cert = files.chain === undefined ? first : `${first}\n${await readChain(files.chain)}`
  tryContext({ cert, key }, files.cert)
  return {
    cert,
    key,
    clients,
    subject: oneLine(own.subject),
    names: namesOf(own),
    validFrom: Date.parse(own.validFrom),
    validTo: Date.parse(own.validTo),
  }
}

async function readChain(file: string): Promise<string> {
  const pem = await readPem(file, 'chain')
  if (parseChain(file, pem).length === 0) {
    throw new CertificateError(`${file} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)`)
  }
  return (pem.match(certificateBlock) ?? []).join('\n')
}

/**
 * Reads the CAs and revocation lists of client certificates. TLS reads one list of each text, and ignores a damaged one silently.
 *
 * @throws {CertificateError}
 */
export async function loadClientFiles(
  files: NonNullable<CertificateFiles['clients']>,
): Promise<NonNullable<Certificate['clients']>> {
  const authorities = await readPem(files.ca, 'CA')
  if (parseChain(files.ca, authorities).length === 0) {
    throw new CertificateError(`${files.ca} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)`)
  }
  const ca = authorities.match(certificateBlock) ?? []
  if (files.crl === undefined) return { ca, crl: [] }
  const crl = (await readPem(files.crl, 'revocation list')).match(revocationBlock) ?? []
  if (crl.length === 0) {
    throw new CertificateError(`${files.crl} holds no revocation list in PEM form (-----BEGIN X509 CRL-----)`)
  }
  tryContext({ ca, crl }, files.crl)
  return { ca, crl }
}

function tryContext(options: SecureContextOptions, file: string): void {
  try {
    createSecureContext(options)
  } catch (cause) {
    throw new CertificateError(`${file} cannot be used for TLS: ${messageOf(cause)}`, { cause })
  }
}

async function readPem(file: string, what: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new CertificateError(`the ${what} file ${file} cannot be read: ${messageOf(cause)}`, { cause })
  }
}

function parseChain(file: string, pem: string): readonly X509Certificate[] {
  return (pem.match(certificateBlock) ?? []).map((block, index) => {
    try {
      return new X509Certificate(block)
    } catch (cause) {
      throw new CertificateError(`certificate ${index + 1} in ${file} is damaged: ${messageOf(cause)}`, { cause })
    }
  })
}

function parseKey(file: string, pem: string): KeyObject {
  if (encryptedKey.test(pem)) {
    throw new CertificateError(
      `the key in ${file} is encrypted; decrypt it with: openssl pkey -in ${file} -out plain.key`,
    )
  }
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw new CertificateError(`${file} holds no private key in PEM form: ${messageOf(cause)}`, { cause })
  }
}

/** `DNS:a.example, IP Address:127.0.0.1` as a list of names. */
function namesOf(certificate: X509Certificate): readonly string[] {
  const names = certificate.subjectAltName?.split(', ') ?? []
  return names.map(name => normalizeAddress(name.slice(name.indexOf(':') + 1)))
}

function oneLine(subject: string | undefined): string {
  return subject?.replaceAll('\n', ', ') ?? ''
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
