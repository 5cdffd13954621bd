import { resolve } from 'node:path'
import { challengeOf } from '../config/acme.js'
import type { AcmeCertificate } from '../server/acme/acme-certificate.js'
import type { GatewayContext } from './context.js'

/**
 * Opens the certificate of `https.acme`; `undefined` without that option. Imported on demand.
 *
 * @throws {StartError} if its files cannot be used
 */
export async function openAcme({ config, cwd, log, metrics }: GatewayContext): Promise<AcmeCertificate | undefined> {
  const { acme } = config.https
  if (acme === undefined) return undefined
  const { AcmeCertificate } = await import('../server/acme/acme-certificate.js')
  const { domains, email, directory, renewBefore, ca } = acme
  return AcmeCertificate.open({
    ...{ domains, email, directory, renewBefore, log, metrics },
    data: resolve(cwd, config.data),
    challenge: challengeOf(config),
    ca: ca === undefined ? undefined : resolve(cwd, ca),
  })
}
