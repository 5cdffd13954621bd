import { setTimeout as delay } from 'node:timers/promises'
import type { Connection } from '../../mqtt/connection.js'
import type { Deliveries } from './deliveries.js'

/** How long what a broker kept may take to come before it is taken for here, in milliseconds. */
const longest = 5000
/** How often that is looked at, in milliseconds. */
const interval = 50

/**
 * Resolves when the broker has brought what it kept, as far as that can be told: where it has more, it sends some of that
 * for what is acknowledged, before it answers a ping behind the acknowledgement. Somebody who publishes without a pause
 * looks the same.
 *
 * @param received how many messages have come
 * @throws {Error} rejects when the connection ends
 */
export async function caughtUp(
  connection: Pick<Connection, 'ping'>,
  deliveries: Pick<Deliveries, 'acknowledged'>,
  received: () => number,
): Promise<void> {
  const until = performance.now() + longest
  while (performance.now() < until) {
    await deliveries.acknowledged()
    const before = received()
    await connection.ping()
    if (received() === before) return
    await delay(interval, undefined, { ref: false })
  }
}
