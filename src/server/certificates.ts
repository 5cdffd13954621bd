import { constants } from 'node:crypto'
import { createSecureContext, type SecureContext, type SecureContextOptions, type SecureVersion } from 'node:tls'
import { FilePoller, stampOf } from '../base/file-poller.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import { StartError } from '../base/start-error.js'
import { type Certificate, CertificateError, type CertificateFiles, loadCertificate } from './certificate.js'

export interface CertificatesOptions {
  readonly files: CertificateFiles
  /** The oldest TLS version to speak. */
  readonly minVersion: SecureVersion
  readonly log: Logger
  readonly metrics: Pick<Metrics, 'certificateExpires'>
  /** How often the files are looked at, in milliseconds. Default: 2 s. */
  readonly pollInterval?: number
}

/** What a TLS server can be told while it runs. */
export interface SecureServer {
  setSecureContext(options: SecureContextOptions): void
}

/**
 * A resumed session brings the verdict on its client's certificate along, and each resumption gives a new session: it
 * would outlive the revocation list, however often that is looked at. Without session tickets Node resumes none.
 */
const noResumption = constants.SSL_OP_NO_TICKET

const day = 24 * 60 * 60 * 1000
/** The log warns from here on, once a day. Let's Encrypt renews 30 days ahead, so by now something is wrong. */
const warnBefore = 14 * day

/** The certificate that the TLS servers show, read again when its files change. */
export class Certificates {
  readonly #options: CertificatesOptions
  readonly #servers: SecureServer[] = []
  readonly #poller: FilePoller
  #current: Certificate
  /** Of the current one; made where it is asked for. */
  #context: SecureContext | undefined
  #lastWarning = Number.NEGATIVE_INFINITY

  private constructor(options: CertificatesOptions, current: Certificate, stamp: string) {
    this.#options = options
    this.#current = current
    this.#announce('Serving the certificate')
    const load = (): Promise<void> => this.#load()
    const onUnchanged = (): void => this.#warnOfExpiry()
    const { files, pollInterval: interval } = options
    this.#poller = new FilePoller({ paths: pathsOf(files), load, onUnchanged, interval }, stamp)
  }

  /**
   * Reads the certificate and begins to watch its files.
   *
   * @throws {StartError} naming the file and the reason
   */
  static async start(options: CertificatesOptions): Promise<Certificates> {
    const stamp = await stampOf(pathsOf(options.files))
    try {
      return new Certificates(options, await loadCertificate(options.files), stamp)
    } catch (error) {
      if (!(error instanceof CertificateError)) throw error
      throw new StartError(error.message, { cause: error })
    }
  }

  get current(): Certificate {
    return this.#current
  }

  /** Whether clients are asked for a certificate. */
  get asksClients(): boolean {
    return this.#options.files.clients !== undefined
  }

  /** What a TLS server is made with. */
  get secureContext(): SecureContextOptions {
    return this.#contextOf(this.#current)
  }

  /** What a TLS server shows in place of its own certificate, at names of its choice. */
  get context(): SecureContext {
    this.#context ??= createSecureContext(this.secureContext)
    return this.#context
  }

  /** Gives `server` every later certificate; connections that are open keep theirs. */
  serve(server: SecureServer): void {
    this.#servers.push(server)
  }

  /** Reads the files now, changed or not, for SIGHUP. A bad certificate is logged and the old one stays. Never rejects. */
  reload(): Promise<void> {
    return this.#poller.reload()
  }

  /** Stops watching; resolves when nothing is being read any more. Idempotent. */
  close(): Promise<void> {
    return this.#poller.close()
  }

  async #load(): Promise<void> {
    try {
      const next = await loadCertificate(this.#options.files)
      for (const server of this.#servers) server.setSecureContext(this.#contextOf(next))
      this.#current = next
      this.#context = undefined
      this.#lastWarning = Number.NEGATIVE_INFINITY
      this.#announce('The certificate was replaced')
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      this.#options.log.error(
        { files: this.#options.files },
        `The new certificate was refused, the old one stays: ${reason}`,
      )
    }
  }

  #contextOf({ cert, key, clients }: Certificate): SecureContextOptions {
    const { minVersion } = this.#options
    if (clients === undefined) return { cert, key, minVersion }
    const crl = clients.crl.length > 0 && { crl: [...clients.crl] }
    return { cert, key, minVersion, ca: [...clients.ca], ...crl, secureOptions: noResumption }
  }

  #announce(message: string): void {
    const { subject, names, validTo } = this.#current
    this.#options.metrics.certificateExpires(validTo)
    this.#options.log.info({ subject, names, expires: new Date(validTo).toISOString() }, message)
    this.#warnOfExpiry()
  }

  #warnOfExpiry(): void {
    const now = Date.now()
    const left = this.#current.validTo - now
    if (left > warnBefore || now - this.#lastWarning < day) return
    this.#lastWarning = now
    const fields = { subject: this.#current.subject, expires: new Date(this.#current.validTo).toISOString() }
    if (left <= 0) this.#options.log.warn(fields, 'The certificate has expired: clients refuse to connect')
    else this.#options.log.warn(fields, `The certificate expires in ${Math.ceil(left / day)} days`)
  }
}

function pathsOf({ cert, key, chain, clients }: CertificateFiles): string[] {
  return [cert, key, chain, clients?.ca, clients?.crl].flatMap(file => file ?? [])
}
