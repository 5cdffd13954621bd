import { X509Certificate } from 'node:crypto'
import { constants, copyFile, mkdir, readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import { codeOf } from '../base/error-code.js'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import { CertificateError, type CertificateFiles, loadCertificate } from './certificate.js'
import { replaceFile } from './replace-file.js'

export interface DevelopmentCertificateOptions {
  /** Its directory; made if missing. */
  readonly directory: string
  readonly log: Logger
}

/** Marks generated certificates, which may be replaced. */
const organization = 'mqway development certificate'
const day = 24 * 60 * 60 * 1000
/** Days: Apple's systems trust no server certificate for longer than 825, and Chromium's limit for public ones is 398. */
const lifetime = 397 * day
const readme = new URL('../../certs/README.md', import.meta.url)
/** Time before the end at which it is replaced. */
const renewBefore = 15 * day

/**
 * The self-signed development certificate for localhost, 127.0.0.1, ::1 and the host name. It is generated once, so that a browser's trust lasts, and
 * replaced near its end or if it is damaged.
 *
 * @throws {StartError} if the directory is not writable, or holds another certificate that cannot be used
 */
export async function developmentCertificate(options: DevelopmentCertificateOptions): Promise<CertificateFiles> {
  const { directory, log } = options
  const files = { cert: join(directory, 'localhost.crt'), key: join(directory, 'localhost.key') }
  try {
    if (!(await isUsable(files))) {
      await mkdir(directory, { recursive: true })
      await make(files)
      await copyFile(readme, join(directory, 'README.md'), constants.COPYFILE_EXCL).catch(ignoreExisting)
      log.info({ directory }, 'Made a development certificate')
    }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    const advice = 'give your own with --cert and --key, or turn TLS off with --https-port off'
    throw new StartError(`no development certificate in ${directory}: ${reason}; ${advice}`, { cause })
  }
  return files
}

async function isUsable(files: CertificateFiles): Promise<boolean> {
  const ours = await isOurs(files.cert)
  try {
    const certificate = await loadCertificate(files)
    return !ours || certificate.validTo - Date.now() > renewBefore
  } catch (error) {
    if (ours && error instanceof CertificateError) return false
    throw error
  }
}

/** Whether a certificate was generated here. A file that does not parse was not. */
async function isOurs(file: string): Promise<boolean> {
  try {
    return new X509Certificate(await readFile(file)).subject.includes(organization)
  } catch (error) {
    return codeOf(error) === 'ENOENT'
  }
}

async function make(files: CertificateFiles): Promise<void> {
  const notBefore = Date.now()
  const made = await generate(
    [
      { name: 'commonName', value: 'localhost' },
      { name: 'organizationName', value: organization },
    ],
    {
      keyType: 'ec',
      curve: 'P-256',
      algorithm: 'sha256',
      // An hour back, for clocks that are behind.
      notBeforeDate: new Date(notBefore - 60 * 60 * 1000),
      notAfterDate: new Date(notBefore + lifetime),
      extensions: [
        { name: 'basicConstraints', cA: false, critical: true },
        { name: 'keyUsage', digitalSignature: true, critical: true },
        { name: 'extKeyUsage', serverAuth: true },
        {
          name: 'subjectAltName',
          altNames: [
            ...[...new Set(['localhost', hostname()])].map(value => ({ type: 2 as const, value })),
            { type: 7, ip: '127.0.0.1' },
            { type: 7, ip: '::1' },
          ],
        },
      ],
    },
  )
  await replaceFile(files.key, made.private, 0o600)
  await replaceFile(files.cert, `${made.cert}\n`, 0o644)
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error
}
