import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generate } from 'selfsigned'

/** Makes a certificate for this run, the same for every system: ECDSA on P-256. */
export async function makeCertificate(directory: string): Promise<{ cert: string; key: string }> {
  const made = await generate([{ name: 'commonName', value: 'localhost' }], {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
  })
  const cert = join(directory, 'cert.pem')
  const key = join(directory, 'key.pem')
  writeFileSync(cert, `${made.cert}\n`)
  writeFileSync(key, made.private, { mode: 0o600 })
  return { cert, key }
}
