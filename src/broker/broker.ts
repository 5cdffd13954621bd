import type { Duplex } from 'node:stream'
import type { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'

/** Who is at the other end of a client's connection, as far as the network tells. */
export interface Peer {
  /** The client's IP address (that of the browser, when a trusted proxy told it), or `unix` for a Unix socket. */
  readonly address: string
  /** The client's TCP port; 0 where there is none. */
  readonly port: number
  /** The address and port that the client connected to, for the PROXY protocol. */
  readonly localAddress: string
  readonly localPort: number
  /** The connection's id in the log; absent for the program itself. */
  readonly connection?: string
  /** Who it was found to be at the upgrade; absent where nobody asked, and where nothing was presented. */
  readonly identity?: Identity
}

/**
 * The program itself, which a gatekeeper does not ask: the readiness probe, the session of the push side with another broker. It is known by
 * being this very object, so that no client can pass for it. With the PROXY protocol it is a LOCAL connection.
 */
export const internalPeer: Peer = Object.freeze({ address: 'unix', port: 0, localAddress: 'unix', localPort: 0 })

/** What `Broker.open` opens: a stream, which some brokers can read with less work when nobody keeps what was read. */
export interface BrokerStream extends Duplex {
  /** Why the broker ended the connection, where it can say more than that; known when `'end'` comes. */
  readonly ending?: GatewayError | undefined
  /**
   * Hands over what was read and what will be, instead of `'data'`: `bytes` are only valid during the call. All else is
   * as with the stream: it flows until `pause()`. Call it once, before anything else reads.
   */
  deliverTo?(take: (bytes: Buffer) => void): void
}

/**
 * A broker is something that opens a byte stream that speaks MQTT.
 *
 * Every implementation passes `test/contracts/broker.ts`. The tunnel, the plain MQTT port and the readiness probe know
 * this interface and nothing else, so a further kind of broker is one file and one line in `gateway.ts`.
 */
export interface Broker {
  /** What to call it in logs and on pages: `embedded`, or the address(es) without any secret. */
  readonly name: string

  /**
   * Opens one MQTT connection for `peer`.
   *
   * The stream is a half-open-capable byte stream: `end()` says that no more will be written and what was written is
   * still delivered; `'end'` says that the broker will send no more. Whoever called `open` destroys the stream.
   *
   * @throws {Ending} `broker-refused` or `broker-timeout` when no connection could be had in time
   */
  open(peer: Peer): Promise<BrokerStream>

  /** Ends the connections that are left and what the broker itself holds. Idempotent; resolves when all is released. */
  close(): Promise<void>
}
