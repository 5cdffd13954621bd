import type { Duplex } from 'node:stream'
import type { ClientSession } from '../base/connected-clients.js'
import type { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'

/** The client's side of a connection to the broker. */
export interface Peer {
  /** The client's IP address (the browser's, where a trusted proxy names it), or `unix` for a Unix socket. */
  readonly address: string
  /** The client's TCP port; 0 if there is none. */
  readonly port: number
  /** The address and port that the client connected to, for the PROXY protocol. */
  readonly localAddress: string
  readonly localPort: number
  /** The connection's id in the log; absent for the gateway itself. */
  readonly connection?: string
  /** The identity found at the upgrade; absent without access control and without credentials. */
  readonly identity?: Identity
}

/**
 * The gateway itself: the readiness probe, and the push session with a remote broker. No authorizer is asked about it, so it is recognized by
 * this very object, which no client can imitate. With the PROXY protocol it is a LOCAL connection.
 */
export const internalPeer: Peer = Object.freeze({ address: 'unix', port: 0, localAddress: 'unix', localPort: 0 })

/** An MQTT connection: a byte stream in both directions. */
export interface BrokerStream extends Duplex {
  /** Why the broker closed the connection, where it says so; set before `'end'`. */
  readonly closeReason?: GatewayError | undefined
  /**
   * Ends the connection for a reason of the gateway's, of which the broker tells the client (DISCONNECT of MQTT 5); the stream ends behind that.
   * Returns false where the broker cannot: then `end()` it.
   */
  endFor?: ((reason: GatewayError) => boolean) | undefined
  /** The connected client's session; absent where the broker does not tell. */
  clientSession?: (() => ClientSession | undefined) | undefined
}

/** Optional ability of a `BrokerStream`: reading without a buffer allocated for each chunk. */
export interface DirectReadable {
  /**
   * Calls `onBytes` instead of emitting `'data'`, for bytes that are already buffered, too. `bytes` are only valid during the call.
   * The stream flows until `pause()`, as usual. Call it once, before anything else reads.
   */
  readDirectly(onBytes: (bytes: Buffer) => void): void
}

export function isDirectReadable<T extends BrokerStream>(stream: T): stream is T & DirectReadable {
  return 'readDirectly' in stream
}

/**
 * A broker opens byte streams that carry MQTT.
 *
 * Every implementation passes `test/contracts/broker.ts`. The tunnel, the plain MQTT port and the readiness probe know only this interface:
 * a further kind of broker is one folder and one line in `gateway/`.
 */
export interface Broker {
  /** Name in logs and on pages: `embedded`, or the address(es) without secrets. */
  readonly name: string

  /**
   * Opens one MQTT connection for `peer`.
   *
   * The stream may be half-open: after `end()`, what was written is still delivered; after `'end'`, the broker sends no more. The caller of
   * `open` destroys the stream.
   *
   * @throws {GatewayError} `broker-refused` or `broker-timeout` where no connection was established in time
   */
  open(peer: Peer): Promise<BrokerStream>

  /** Closes the open connections and releases the broker's resources. Idempotent; resolves when all is released. */
  close(): Promise<void>
}
