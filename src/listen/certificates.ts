import { stat } from 'node:fs/promises'
import type { SecureContextOptions, SecureVersion } from 'node:tls'
import type { Logger } from '../log.js'
import type { Metrics } from '../metrics.js'
import { StartError } from '../start-error.js'
import { type Certificate, CertificateError, type CertificateFiles, loadCertificate } from './certificate.js'

export interface CertificatesOptions {
  readonly files: CertificateFiles
  /** The oldest TLS version to speak. */
  readonly minVersion: SecureVersion
  readonly log: Logger
  readonly metrics: Metrics
  /** How often the files are looked at, in milliseconds. Default: 2 s. */
  readonly pollInterval?: number
}

/** What a TLS server can be told while it runs. */
export interface SecureServer {
  setSecureContext(options: SecureContextOptions): void
}

const defaultPollInterval = 2000
const day = 24 * 60 * 60 * 1000
/** The log warns from here on, once a day. Let's Encrypt renews 30 days ahead, so by now something is wrong. */
const warnBefore = 14 * day

/**
 * The certificate that the TLS servers show, read again when its files change.
 *
 * The files are polled: a poll follows renames and symbolic links, however certbot, Kubernetes or an editor replace
 * them, and works on file systems without notifications, all of which watching gets wrong somewhere. Two `stat` calls
 * every two seconds are no cost.
 */
export class Certificates {
  readonly #options: CertificatesOptions
  readonly #servers: SecureServer[] = []
  #timer: NodeJS.Timeout | undefined
  #current: Certificate
  /** What the files looked like when they were last loaded, and when they were last looked at. */
  #loaded: string
  #seen: string
  #working: Promise<void> = Promise.resolve()
  #lastWarning = Number.NEGATIVE_INFINITY
  #closed = false

  private constructor(options: CertificatesOptions, current: Certificate, stamp: string) {
    this.#options = options
    this.#current = current
    this.#loaded = stamp
    this.#seen = stamp
    this.#announce('Serving the certificate')
    this.#schedulePoll()
  }

  /**
   * Reads the certificate and begins to watch its files.
   *
   * @throws {StartError} naming the file and the reason
   */
  static async start(options: CertificatesOptions): Promise<Certificates> {
    const stamp = await stampOf(options.files)
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

  /** Gives `server` every later certificate; connections that are open keep theirs. */
  serve(server: SecureServer): void {
    this.#servers.push(server)
  }

  /** Reads the files now, changed or not, for SIGHUP. A bad certificate is logged and the old one stays. Never rejects. */
  reload(): Promise<void> {
    return this.#enqueue(async () => {
      this.#seen = await stampOf(this.#options.files)
      await this.#load()
    })
  }

  /** Stops watching; resolves when nothing is being read any more. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#working
  }

  /** One read at a time, in order. */
  #enqueue(work: () => Promise<void>): Promise<void> {
    this.#working = this.#working.then(async () => {
      if (!this.#closed) await work()
    })
    return this.#working
  }

  #schedulePoll(): void {
    this.#timer = setTimeout(async () => {
      await this.#enqueue(() => this.#poll())
      if (!this.#closed) this.#schedulePoll()
    }, this.#options.pollInterval ?? defaultPollInterval)
    this.#timer.unref()
  }

  /** Loads once two looks in a row saw the same new files: certificate and key are rarely written in one step. */
  async #poll(): Promise<void> {
    const stamp = await stampOf(this.#options.files)
    const settled = stamp === this.#seen
    this.#seen = stamp
    if (settled && stamp !== this.#loaded) await this.#load()
    else this.#warnOfExpiry()
  }

  async #load(): Promise<void> {
    this.#loaded = this.#seen
    try {
      const next = await loadCertificate(this.#options.files)
      for (const server of this.#servers) server.setSecureContext(this.#contextOf(next))
      this.#current = next
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
    return { cert, key, minVersion, ca: [...clients.ca], ...(clients.crl.length > 0 && { crl: [...clients.crl] }) }
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

/** What changes whenever a file is replaced or written; for a file that is not there, that it is not. */
async function stampOf(files: CertificateFiles): Promise<string> {
  const paths = [files.cert, files.key, files.clients?.ca, files.clients?.crl]
  const stamps = paths
    .flatMap(file => file ?? [])
    .map(async file => {
      try {
        const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true })
        return [dev, ino, size, mtimeNs, ctimeNs].join('-')
      } catch {
        return 'missing'
      }
    })
  return (await Promise.all(stamps)).join(' ')
}
