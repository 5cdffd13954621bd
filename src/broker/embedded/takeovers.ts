import type { Client } from 'aedes'
import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import { shortened } from '../../base/shortened.js'
import { internalPeer, type Peer } from '../broker.js'

/** Client ids whose takeovers are counted, at most; the one that was taken over the longest ago goes first. */
const maxCounted = 1000

/** UTF-16 code units of a client id in the log. */
const maxLoggedId = 256

/** What `Takeovers` needs of the broker. */
export interface TakeoversOptions {
  peerOf(client: Client): Peer | undefined
  /** Sets the reason that a client is given when its connection ends. */
  setCloseReason(client: Client, ending: GatewayError): void
  readonly log: Pick<Logger, 'warn'>
  /** Takeovers of one client id within `windowMs` that are no coincidence. Default: 5. */
  readonly tooMany?: number
  /** In milliseconds. Default: 60,000. A client id is warned of at most once in ten times as long. */
  readonly windowMs?: number
  /** In milliseconds, since any moment; the machine's when left out. */
  readonly now?: () => number
}

interface Count {
  takeovers: number
  since: number
  warnedAt: number
}

/**
 * Tells a client that its connection ends because the same client id connected again [MQTT-3.1.4-2], and warns where that
 * happens again and again: two clients with one id that both reconnect end each other's connection for ever.
 */
export class Takeovers {
  readonly #options: TakeoversOptions
  /** By client id: the client that is connected. */
  readonly #connected = new Map<string, Client>()
  /** By client id; the latest takeover is last. */
  readonly #counts = new Map<string, Count>()

  constructor(options: TakeoversOptions) {
    this.#options = options
  }

  /** Call when the CONNECT of `client` is accepted, before an earlier connection of its client id is closed. */
  accepted(client: Client): void {
    const earlier = this.#connected.get(client.id)
    if (!earlier || earlier === client) return
    const { peerOf, setCloseReason } = this.#options
    const peer = peerOf(client)
    setCloseReason(earlier, new GatewayError('session-taken-over', peer && { hint: describePeer(peer) }))
    this.#count(client.id, [peerOf(earlier), peer])
  }

  /** Call when `client` is connected. */
  connected(client: Client): void {
    this.#connected.set(client.id, client)
  }

  /** Call when `client` is no longer connected. */
  disconnected(client: Client): void {
    if (this.#connected.get(client.id) === client) this.#connected.delete(client.id)
  }

  #count(id: string, peers: readonly (Peer | undefined)[]): void {
    const { tooMany = 5, windowMs = 60_000, now = () => performance.now(), log } = this.#options
    const count = this.#counts.get(id) ?? { takeovers: 0, since: now(), warnedAt: Number.NEGATIVE_INFINITY }
    this.#counts.delete(id)
    this.#counts.set(id, count)
    for (const oldest of this.#counts.keys()) {
      if (this.#counts.size <= maxCounted) break
      this.#counts.delete(oldest)
    }
    if (now() - count.since > windowMs) Object.assign(count, { takeovers: 0, since: now() })
    count.takeovers++
    if (count.takeovers < tooMany || now() - count.warnedAt < windowMs * 10) return
    count.warnedAt = now()
    const addresses = [...new Set(peers.map(peer => peer?.address))]
    log.warn(
      { clientId: shortened(id, maxLoggedId), addresses, takeovers: count.takeovers },
      'clients with the same client id end each other’s connection again and again: give each client an id of its own',
    )
  }
}

/** The end of the sentence “The same client id connected from another connection: …”. */
function describePeer(peer: Peer): string {
  if (peer === internalPeer) return 'the gateway itself'
  return peer.port === 0 ? peer.address : `${peer.address} port ${peer.port}`
}
