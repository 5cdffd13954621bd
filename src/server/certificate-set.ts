import { compileTunnelConditions } from '../access/tunnel-conditions.js'
import type { CertificateFiles } from './certificate.js'
import { Certificates, type CertificatesOptions } from './certificates.js'
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

/** The certificates of the TLS servers, by server name. */
export interface CertificateSet extends CertificateSource {
  /** Reads the files again, for SIGHUP. An invalid certificate is logged, and the old one stays. Never rejects. */
  reload(): Promise<void>
  /** Stops watching; resolves when no file is being read. Idempotent. */
  close(): Promise<void>
}

/**
 * Reads all certificates and watches their files. The metric is of the one that expires first.
 *
 * @throws {StartError} naming the file and the reason
 */
export async function startCertificateSet({ named, ...options }: CertificateSetOptions): Promise<CertificateSet> {
  const expiries: number[] = []
  const all: Certificates[] = []
  const start = async (files: CertificateFiles, index: number): Promise<Certificates> => {
    const certificateExpires = (time: number): void => {
      expiries[index] = time
      options.metrics.certificateExpires(Math.min(...expiries))
    }
    const certificates = await Certificates.start({ ...options, metrics: { certificateExpires }, files })
    all.push(certificates)
    return certificates
  }
  const close = async (): Promise<void> => {
    await Promise.all(all.map(certificates => certificates.close()))
  }
  try {
    const usual = await start(options.files, 0)
    const byName: { isFor: (serverName: string) => boolean; certificates: Certificates }[] = []
    for (const [index, { hosts, files }] of named.entries()) {
      const { isAt } = compileTunnelConditions({ hosts })
      const isFor = (serverName: string): boolean => isAt?.(serverName, undefined) === true
      byName.push({ isFor, certificates: await start(files, index + 1) })
    }
    const SNICallback: CertificateSource['secureContext']['SNICallback'] = (serverName, done) =>
      done(null, byName.find(({ isFor }) => isFor(serverName))?.certificates.context)
    return {
      asksClients: usual.asksClients,
      get secureContext() {
        return { ...usual.secureContext, ...(byName.length > 0 && { SNICallback }) }
      },
      serve: server => usual.serve(server),
      reload: async () => {
        await Promise.all(all.map(certificates => certificates.reload()))
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
