import type { Client } from 'aedes'
import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import { truncate } from '../../base/truncate.js'
import { internalPeer, type Peer } from '../broker.js'

/** Client ids with counted takeovers; the least recent is dropped first. */
const maxCounted = 1000

/** Takeovers of one client id within a window that are logged, and the window in milliseconds; an id is logged once in ten windows. */
const [tooMany, window] = [5, 60_000]

/** Maximum length of a client id in the log, in UTF-16 code units. */
const maxLoggedId = 256

export interface TakeoversOptions {
  peerOf(client: Client): Peer | undefined
  /** Sets the close reason of a client's connection. */
  setCloseReason(client: Client, reason: GatewayError): void
  readonly log: Pick<Logger, 'warn'>
  /** Monotonic time in milliseconds. Default: the machine's. */
  readonly now?: () => number
}

interface Count {
  takeovers: number
  since: number
  warnedAt: number
}

/**
 * Sets the close reason of a client whose client id connected again [MQTT-3.1.4-2], and logs repeated takeovers: two reconnecting clients
 * with one id close each other's connection for ever.
 */
export class Takeovers {
  readonly #options: TakeoversOptions
  /** By client id; the latest takeover is last. */
  readonly #counts = new Map<string, Count>()

  constructor(options: TakeoversOptions) {
    this.#options = options
  }

  /** Call when the CONNECT of `client` is accepted, before an earlier connection of its client id is closed. */
  accepted(client: Client, earlier: Client | undefined): void {
    if (!earlier || earlier === client) return
    const { peerOf, setCloseReason } = this.#options
    const peer = peerOf(client)
    setCloseReason(earlier, new GatewayError('session-taken-over', peer && { hint: describePeer(peer) }))
    this.#count(client.id, [peerOf(earlier), peer])
  }

  #count(id: string, peers: readonly (Peer | undefined)[]): void {
    const { now = () => performance.now(), log } = this.#options
    const count = this.#counts.get(id) ?? { takeovers: 0, since: now(), warnedAt: Number.NEGATIVE_INFINITY }
    this.#counts.delete(id)
    this.#counts.set(id, count)
    for (const oldest of this.#counts.keys()) {
      if (this.#counts.size <= maxCounted) break
      this.#counts.delete(oldest)
    }
    if (now() - count.since > window) Object.assign(count, { takeovers: 0, since: now() })
    count.takeovers++
    if (count.takeovers < tooMany || now() - count.warnedAt < window * 10) return
    count.warnedAt = now()
    const addresses = [...new Set(peers.map(peer => peer?.address))]
    log.warn(
      { clientId: truncate(id, maxLoggedId), addresses, takeovers: count.takeovers },
      'clients with the same client id keep closing each other’s connection: give each client an id of its own',
    )
  }
}

/** The end of the sentence “The same client id connected from another connection: …”. */
function describePeer(peer: Peer): string {
  if (peer === internalPeer) return 'the gateway itself'
  return peer.port === 0 ? peer.address : `${peer.address} port ${peer.port}`
}
