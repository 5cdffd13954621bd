import { createPrivateKey } from 'node:crypto'
import { chmod, mkdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../../base/error-code.js'
import { type Certificate, CertificateError, type CertificateFiles, loadCertificate } from '../certificate.js'
import { replaceFile, replaceFileIf } from '../replace-file.js'

/** Records of earlier orders. */
export interface OrderHistory {
  /** URL of the ACME server that issued the certificate; empty for none. */
  readonly directory: string
  /** When the last orders began, in milliseconds since 1970; the newest is the last. */
  readonly orders: readonly number[]
}

const noHistory: OrderHistory = { directory: '', orders: [] }

const privateDirectory = 0o700
const privateFile = 0o600

/** Marks certificates that are served until the first one of the CA. */
const standInOrganization = 'mqway stand-in certificate'
/** Short, so that after a day without another one the log warns of the expiry. */
const standInLifetime = 15 * 24 * 60 * 60 * 1000
/** Characters of a common name (RFC 5280, appendix A.1). */
const maxCommonName = 64

/**
 * The files in `acme` of the data directory: `account.pem` with the key of the account, `certificate.pem` with the certificate and its key, and `orders.json`
 * with the last orders. Only this user may read them.
 */
export class AcmeFiles {
  readonly #directory: string

  private constructor(directory: string) {
    this.#directory = directory
  }

  /**
   * Makes the directory.
   *
   * @param data the data directory
   * @throws if it cannot be used
   */
  static async open(data: string): Promise<AcmeFiles> {
    const directory = join(data, 'acme')
    await mkdir(directory, { recursive: true, mode: privateDirectory })
    await chmod(directory, privateDirectory)
    return new AcmeFiles(directory)
  }

  /** One file has both, so that they are replaced as one. */
  get certificate(): CertificateFiles {
    const file = this.#path('certificate.pem')
    return { cert: file, key: file }
  }

  /**
   * The certificate in the file; `undefined` for none.
   *
   * @throws {CertificateError} if it is damaged or cannot be read
   */
  async readCertificate(): Promise<Certificate | undefined> {
    try {
      return await loadCertificate(this.certificate)
    } catch (error) {
      if (error instanceof CertificateError && codeOf(error.cause) === 'ENOENT') return undefined
      throw error
    }
  }

  /** Renames a damaged certificate, which nothing reads any more. */
  async setAsideCertificate(): Promise<void> {
    await rename(this.certificate.cert, this.#path('certificate.damaged.pem'))
  }

  /**
   * Replaces the certificate.
   *
   * @param pem the private key, the certificate and its chain
   * @param names that it must be for
   * @throws if it has expired, is not for all names, does not match the key, or is none that TLS accepts; the old one stays
   */
  async writeCertificate(pem: string, names: readonly string[]): Promise<Certificate> {
    return replaceFileIf(this.certificate.cert, pem, privateFile, async draft => {
      const certificate = await loadCertificate({ cert: draft, key: draft })
      const missing = missingNames(certificate, names)
      if (missing.length > 0) throw new CertificateError(`the new certificate is not for ${missing.join(', ')}`)
      if (certificate.validTo <= Date.now()) throw new CertificateError('the new certificate has expired already')
      return certificate
    })
  }

  /** Replaces the certificate by one that signs itself. */
  async writeStandIn(names: readonly string[]): Promise<Certificate> {
    // The largest of all libraries.
    const { generate } = await import('selfsigned')
    const [first = ''] = names
    const now = Date.now()
    const made = await generate(
      [
        { name: 'commonName', value: first.slice(0, maxCommonName) },
        { name: 'organizationName', value: standInOrganization },
      ],
      {
        keyType: 'ec',
        curve: 'P-256',
        algorithm: 'sha256',
        notBeforeDate: new Date(now - 60 * 60 * 1000),
        notAfterDate: new Date(now + standInLifetime),
        extensions: [{ name: 'subjectAltName', altNames: names.map(value => ({ type: 2 as const, value })) }],
      },
    )
    return this.writeCertificate(`${made.private}\n${made.cert}\n`, names)
  }

  /**
   * The key of the account (PEM).
   *
   * @param make makes one, if there is none
   * @throws if it is damaged or cannot be read
   */
  async accountKey(make: () => Promise<string>): Promise<string> {
    const file = this.#path('account.pem')
    const stored = await readIfThere(file)
    if (stored !== undefined) return checkKey(file, stored)
    const made = await make()
    await replaceFile(file, made, privateFile)
    return made
  }

  /** The history; an empty one for a missing or damaged file. */
  async readHistory(): Promise<OrderHistory> {
    const text = await readIfThere(this.#path('orders.json'))
    return text === undefined ? noHistory : parseHistory(text)
  }

  async writeHistory({ directory, orders }: OrderHistory): Promise<void> {
    const content = { directory, orders: orders.map(time => new Date(time).toISOString()) }
    await replaceFile(this.#path('orders.json'), `${JSON.stringify(content)}\n`, privateFile)
  }

  #path(name: string): string {
    return join(this.#directory, name)
  }
}

/** Those of `names` that the certificate is not for. */
export function missingNames(certificate: Certificate, names: readonly string[]): readonly string[] {
  return names.filter(name => !certificate.names.includes(name))
}

/** Whether a certificate was made by `writeStandIn`. */
export function isStandIn({ subject }: Certificate): boolean {
  return subject.includes(`O=${standInOrganization}`)
}

function checkKey(file: string, pem: string): string {
  try {
    createPrivateKey(pem)
    return pem
  } catch (cause) {
    throw new Error(`${file} holds no private key; remove it to get another account`, { cause })
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function parseHistory(text: string): OrderHistory {
  try {
    const { directory, orders }: Record<string, unknown> = { ...JSON.parse(text) }
    if (typeof directory !== 'string' || !Array.isArray(orders)) return noHistory
    return { directory, orders: orders.map(time => Date.parse(String(time))).filter(time => !Number.isNaN(time)) }
  } catch {
    return noHistory
  }
}
