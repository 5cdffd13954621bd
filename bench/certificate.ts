import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generate } from 'selfsigned'

/** A certificate for this run, the same for every system: ECDSA on P-256. */
export async function makeCertificate(): Promise<{ cert: string; key: string; remove(): void }> {
  const directory = mkdtempSync(join(tmpdir(), 'mqway-bench-certificate-'))
  const made = await generate([{ name: 'commonName', value: 'localhost' }], {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
  })
  const cert = join(directory, 'cert.pem')
  const key = join(directory, 'key.pem')
  writeFileSync(cert, `${made.cert}\n`)
  writeFileSync(key, made.private, { mode: 0o600 })
  return { cert, key, remove: () => rmSync(directory, { recursive: true, force: true }) }
}
