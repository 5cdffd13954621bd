import { compileAddresses } from './addresses.js'
import type { Client } from './client-address.js'

/** Tells which clients may read `/metrics`, and the addresses of brokers in refusals and at `/readyz`. */
export type DetailReaders = (client: Client) => boolean

/**
 * Makes the check of the option `metrics.allow`. A request that a proxy forwarded that is not trusted never passes.
 *
 * @param allow addresses, CIDR ranges, `loopback` and the like
 * @throws {TypeError} naming the first entry that is no address
 */
export function compileDetailReaders(allow: readonly string[]): DetailReaders {
  const isInRange = compileAddresses(allow)
  return ({ address, viaUnknownProxy }) => !viaUnknownProxy && isInRange(address)
}
