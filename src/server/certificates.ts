import { constants } from 'node:crypto'
import { createSecureContext, type SecureContext, type SecureContextOptions, type SecureVersion } from 'node:tls'
import { FilePoller, stampOf } from '../base/file-poller.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import { StartError } from '../base/start-error.js'
import {
  type Certificate,
  CertificateError,
  type CertificateFiles,
  loadCertificate,
  loadClientFiles,
} from './certificate.js'
import type { SessionTicketKeys } from './session-ticket-keys.js'

export interface CertificatesOptions {
  readonly files: CertificateFiles
  readonly minVersion: SecureVersion
  /** Session tickets, where clients are not asked for a certificate. Default: keys of this process's own, which end with it. */
  readonly ticketKeys?: SessionTicketKeys | undefined
  readonly log: Logger
  readonly metrics: Pick<Metrics, 'certificateExpires'>
  /** Milliseconds between two checks of the files. Default: 2 s. */
  readonly pollInterval?: number
}

/** TLS options that can change while a server runs. */
export interface SecureServer {
  setSecureContext(options: SecureContextOptions): void
  setTicketKeys(keys: Buffer): void
}

/**
 * Disables session tickets with client certificates: a resumed session keeps the verdict on its certificate, and would outlive a revocation.
 */
const noResumption = constants.SSL_OP_NO_TICKET

const day = 24 * 60 * 60 * 1000
/** Time before the end from which on a warning is logged daily; Let's Encrypt renews 30 days before. */
const warnBefore = 14 * day

/** One certificate of the TLS servers, read again when its files change. */
export class Certificates {
  readonly #options: CertificatesOptions
  readonly #servers: SecureServer[] = []
  readonly #poller: FilePoller
  #current: Certificate
  /** The context of the current certificate; made when needed. */
  #context: SecureContext | undefined
  #lastWarning = Number.NEGATIVE_INFINITY
  #isClosed = false

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
   * Reads the certificate and watches its files.
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

  get asksClients(): boolean {
    return this.#options.files.clients !== undefined
  }

  get secureContext(): SecureContextOptions {
    return this.#contextOf(this.#current)
  }

  /** The context for SNI. */
  get context(): SecureContext {
    this.#context ??= createSecureContext(this.secureContext)
    return this.#context
  }

  /** Applies new certificates to `server`; open connections keep theirs. */
  serve(server: SecureServer): void {
    this.#servers.push(server)
    if (!this.asksClients) this.#options.ticketKeys?.serve(server)
  }

  /** Reads the files again, for SIGHUP. An invalid certificate is logged, and the old one stays. Never rejects. */
  reload(): Promise<void> {
    return this.#poller.reload()
  }

  /** Stops watching; resolves when no file is being read. Idempotent. */
  close(): Promise<void> {
    this.#isClosed = true
    return this.#poller.close()
  }

  async #load(): Promise<void> {
    const { files, log } = this.#options
    try {
      this.#apply(await loadCertificate(files))
      this.#lastWarning = Number.NEGATIVE_INFINITY
      this.#announce('The certificate was replaced')
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      log.error({ files }, `The new certificate was refused, the old one stays: ${reason}`)
      // A revocation applies although the certificate is broken.
      const clients = files.clients && (await loadClientFiles(files.clients).catch(() => undefined))
      if (clients) this.#apply({ ...this.#current, clients })
    }
  }

  #apply(next: Certificate): void {
    // Another set may have its place.
    if (this.#isClosed) return
    for (const server of this.#servers) server.setSecureContext(this.#contextOf(next))
    this.#current = next
    this.#context = undefined
  }

  #contextOf({ cert, key, clients }: Certificate): SecureContextOptions {
    const { minVersion, ticketKeys } = this.#options
    if (clients === undefined) return { cert, key, minVersion, ...ticketKeys?.secureContext }
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
