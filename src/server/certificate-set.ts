import { compileTunnelConditions } from '../access/tunnel-conditions.js'
import type { CertificateFiles } from './certificate.js'
import { Certificates, type CertificatesOptions, type SecureServer } from './certificates.js'
import type { CertificateSource } from './web-servers.js'

/** A certificate for certain server names (SNI, RFC 6066 §3). */
export interface NamedCertificate {
  /** `a.example`, `*.a.example`, `/regular expression/`. */
  readonly hosts: readonly string[]
  readonly files: CertificateFiles
}

export interface CertificateSetOptions extends CertificatesOptions {
  /** The first with the name is used; `files` for other names, and without SNI. */
  readonly named: readonly NamedCertificate[]
}

interface Named {
  readonly isFor: (serverName: string) => boolean
  readonly certificates: Certificates
}

/** The certificates of the TLS servers, by server name. */
export class CertificateSet implements CertificateSource {
  readonly #usual: Certificates
  readonly #named: readonly Named[]

  private constructor(usual: Certificates, named: readonly Named[]) {
    this.#usual = usual
    this.#named = named
  }

  /**
   * Reads all certificates and watches their files. The metric is of the one that expires first.
   *
   * @throws {StartError} naming the file and the reason
   */
  static async start({ named, ...options }: CertificateSetOptions): Promise<CertificateSet> {
    const expiries = new Map<number, number>()
    const started: Certificates[] = []
    const start = async (files: CertificateFiles, index: number): Promise<Certificates> => {
      const metrics = {
        certificateExpires: (time: number) => {
          expiries.set(index, time)
          options.metrics.certificateExpires(Math.min(...expiries.values()))
        },
      }
      const certificates = await Certificates.start({ ...options, metrics, files })
      started.push(certificates)
      return certificates
    }
    try {
      const usual = await start(options.files, -1)
      const all: Named[] = []
      for (const [index, { hosts, files }] of named.entries()) {
        const { isAt } = compileTunnelConditions({ hosts })
        const certificates = await start(files, index)
        all.push({ isFor: serverName => isAt?.(serverName, undefined) === true, certificates })
      }
      return new CertificateSet(usual, all)
    } catch (error) {
      await Promise.all(started.map(certificates => certificates.close()))
      throw error
    }
  }

  get asksClients(): boolean {
    return this.#usual.asksClients
  }

  get secureContext(): CertificateSource['secureContext'] {
    if (this.#named.length === 0) return this.#usual.secureContext
    return {
      ...this.#usual.secureContext,
      SNICallback: (serverName, done) => {
        const own = this.#named.find(({ isFor }) => isFor(serverName))
        done(null, own?.certificates.context)
      },
    }
  }

  /** Applies new certificates to `server`; open connections keep theirs. */
  serve(server: SecureServer): void {
    this.#usual.serve(server)
  }

  /** Reads the files again, for SIGHUP. An invalid certificate is logged, and the old one stays. Never rejects. */
  async reload(): Promise<void> {
    await Promise.all(this.#all.map(certificates => certificates.reload()))
  }

  /** Stops watching; resolves when no file is being read. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#all.map(certificates => certificates.close()))
  }

  get #all(): readonly Certificates[] {
    return [this.#usual, ...this.#named.map(({ certificates }) => certificates)]
  }
}
