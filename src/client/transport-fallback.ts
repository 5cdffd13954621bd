import type { Transport } from './api.js'

/** Failures of a transport that has worked before, until worse ones are tried. */
const trustedRounds = 2

/**
 * The order of transports: each once per round, from the best one known to work. A transport that has connected before is first
 * retried alone, because an unreachable gateway is more likely than a changed network.
 */
export interface TransportFallback {
  /** The next transport to try. */
  current(): Transport
  /** Notes that a transport has connected. */
  worked(transport: Transport): void
  /**
   * Notes that the current transport has failed.
   *
   * @param silent whether it connected and then stayed silent: then its earlier success does not count
   * @returns whether to try another one at once; otherwise the round is over
   */
  failed(silent?: boolean): boolean
}

/** @param known the transport that worked before */
export function createTransportFallback(transports: readonly Transport[], known?: string | null): TransportFallback {
  const trusted = new Map<Transport, number>()
  let best = Math.max(0, transports.indexOf(known as Transport))
  let tried = 0
  // Without transports: long-polling.
  const at = (index: number): Transport => transports[index % transports.length] ?? 'poll'
  const current = (): Transport => at(best + tried)
  return {
    current,
    worked: transport => {
      best = transports.indexOf(transport)
      tried = 0
      trusted.set(transport, trustedRounds)
    },
    failed: silent => {
      const trust = silent ? 0 : (trusted.get(current()) ?? 0)
      trusted.set(current(), trust - 1)
      if (trust <= 0 && ++tried < transports.length) return true
      tried = 0
      return false
    },
  }
}
