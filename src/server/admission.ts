import type { Duplex } from 'node:stream'

/**
 * Accepts a connection, and calls `release` when it no longer counts: its socket is closed, and `accept` has settled. A client that leaves
 * while its broker is dialled still costs a connection to that broker.
 *
 * @param release may be called twice
 * @throws as `accept`
 */
export async function acceptCounted(
  socket: Duplex,
  release: () => void,
  accept: () => void | Promise<void>,
): Promise<void> {
  let settled = false
  // The listener lives as long as the connection, so it must not hold `accept`, which holds the whole request.
  socket.on('close', () => settled && release())
  try {
    await accept()
  } finally {
    settled = true
    if (socket.closed) release()
  }
}
