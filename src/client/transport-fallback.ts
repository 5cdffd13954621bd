import type { Transport } from './api.js'

/** A transport that has worked here is given so many rounds of its own when it fails, before worse ones are tried. */
const trustedRounds = 2

/**
 * Which transport is tried next. All of them in a round, from the one that works best here; one that got through before is
 * first tried alone: more likely the gateway is away than that something in between has changed its mind.
 */
export interface TransportFallback {
  /** The one to try now. */
  current(): Transport
  /** This one has got through. */
  worked(transport: Transport): void
  /**
   * The current one has not got through.
   *
   * @param silent it has, and then nothing came: then what it did before counts for nothing
   * @returns whether another one is to be tried at once; else, the round is over
   */
  failed(silent?: boolean): boolean
}

/** @param known what has worked before */
export function createTransportFallback(transports: readonly Transport[], known?: string | null): TransportFallback {
  const trusted = new Map<Transport, number>()
  let best = Math.max(0, transports.indexOf(known as Transport))
  let tried = 0
  // Of none, the last resort.
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
