import { compileAddresses } from './addresses.js'
import type { Client } from './client-address.js'

/** Whether a client may read `/metrics`, and the addresses of brokers in errors and at `/readyz`. */
export type DetailReaders = (client: Client) => boolean

/**
 * Compiles `metrics.allow`. A request that an untrusted proxy has forwarded never passes.
 *
 * @param allow addresses, CIDR ranges, `loopback` and the like
 * @throws {TypeError} naming the first invalid entry
 */
export function compileDetailReaders(allow: readonly string[]): DetailReaders {
  const isInRange = compileAddresses(allow)
  return ({ address, viaUnknownProxy }) => !viaUnknownProxy && isInRange(address)
}
