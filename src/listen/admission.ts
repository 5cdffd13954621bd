import type { Duplex } from 'node:stream'

/**
 * Has a connection taken over, and calls `release` once it counts no more: its socket is closed, and taking it over has
 * settled. A client that leaves while its broker is dialled still costs a connection to that broker.
 *
 * @returns what `takeOver` came to; it rejects also with what `takeOver` throws
 */
export function takeOverWhileCounted(
  socket: Duplex,
  release: () => void,
  takeOver: () => void | Promise<void>,
): Promise<void> {
  const taken = settle(takeOver)
  const onClosed = (): void => void taken.then(release, release)
  if (socket.closed) onClosed()
  else socket.once('close', onClosed)
  return taken
}

/** On its own, so that what `takeOver` holds, the whole request, is not held for as long as the connection lasts. */
async function settle(takeOver: () => void | Promise<void>): Promise<void> {
  await takeOver()
}
