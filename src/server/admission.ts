import type { Duplex } from 'node:stream'

/**
 * Has a connection taken over, and calls `release` once it counts no more: its socket is closed, and taking it over has
 * settled. A client that leaves while its broker is dialled still costs a connection to that broker.
 *
 * @param release may be called twice
 * @returns what `takeOver` came to; it rejects also with what `takeOver` throws
 */
export async function takeOverWhileCounted(
  socket: Duplex,
  release: () => void,
  takeOver: () => void | Promise<void>,
): Promise<void> {
  let settled = false
  // It stays for as long as the connection, so it must not hold `takeOver`, which holds the whole request.
  socket.on('close', () => settled && release())
  try {
    await takeOver()
  } finally {
    settled = true
    if (socket.closed) release()
  }
}
