import { createHash, randomBytes } from 'node:crypto'
import { hostname } from 'node:os'

/**
 * The client id of a gateway's session: the same after each start, and another for each gateway of a machine; where it
 * keeps nothing, another for each start.
 *
 * @param data where the gateway keeps its data
 */
export function makeClientId(data: string | undefined): string {
  const place = data === undefined ? randomBytes(5) : createHash('sha256').update(data).digest().subarray(0, 5)
  // Brokers may insist on letters and digits alone, and MQTT 5 ones on no more than 65,535 bytes [MQTT-3.1.3-5].
  const host = hostname()
    .replaceAll(/[^0-9a-zA-Z-]/g, '')
    .slice(0, 40)
  return `mqway-${host}-${place.toString('hex')}`
}
