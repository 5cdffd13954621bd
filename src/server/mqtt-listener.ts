import { createServer, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { normalizeAddress, unixAddress } from '../access/addresses.js'
import type { CertifiedSocket } from '../access/client-certificate.js'
import type { ConnectionLimits } from '../access/limits.js'
import type { SiteRules } from '../access/site-rules.js'
import type { UserLimits } from '../access/user-limits.js'
import { type ConnectionLog, LazyLogger } from '../base/connection-log.js'
import { codeOf } from '../base/error-code.js'
import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import type { Peer } from '../broker/broker.js'
import { acceptCounted } from './admission.js'
import { type Listener, type ListenOptions, listen } from './listener.js'
import { RefusalLog } from './refusal-log.js'
import type { CertificateSource } from './web-servers.js'

export interface MqttListenerOptions extends Omit<ListenOptions, 'purpose'> {
  readonly site?: Pick<SiteRules, 'checkAddress'> | undefined
  readonly limits: ConnectionLimits
  /** Makes the id of a connection in the log. */
  readonly nextId: () => string
  /** Gets each connection. Its socket may be half-open, has no delay, and is unread. */
  accept(socket: Socket, peer: Peer, log: ConnectionLog): void | Promise<void>
}

export interface MqttsListenerOptions extends MqttListenerOptions {
  readonly certificates: CertificateSource
  /** Milliseconds from the connection to the end of the TLS handshake. */
  readonly handshakeTimeout: number
  /** Counts the connections of users that were identified by a certificate. */
  readonly users: UserLimits
  /**
   * Identifies the client by its certificate; `undefined` without one. Left out where clients are not asked for a certificate.
   *
   * @throws {GatewayError} `identity-refused` for an invalid certificate
   */
  identify?: ((socket: CertifiedSocket, peer: Peer) => Promise<Identity> | undefined) | undefined
}

/** Milliseconds of silence before the first TCP keep-alive probe. */
const tcpKeepAliveDelay = 60_000

const socketOptions = {
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: tcpKeepAliveDelay,
}

/** The client has disconnected during the TLS handshake: a port scan, or a client that does not trust the certificate. */
const departures: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT'])

/**
 * Listens for plain MQTT. A refused connection is closed without a reason: MQTT has no packet for one before a CONNECT.
 *
 * @throws {StartError} when an address cannot be bound
 */
export function startMqttListener(options: MqttListenerOptions): Promise<Listener> {
  const { site, limits, accept } = options
  const describe = describer(options)
  const onConnection = (socket: Socket): void => {
    const { peer, log, refuse } = describe(socket)
    try {
      site?.checkAddress(peer.address)
      const release = limits.admit(peer.address)
      acceptCounted(socket, release, () => accept(socket, peer, log)).catch(refuse)
    } catch (error) {
      refuse(error)
    }
  }
  return listen(() => createServer(socketOptions, onConnection), { ...options, purpose: 'mqtt' })
}

/**
 * Listens for MQTT over TLS. Addresses that may not connect, or connect too often, are refused before the handshake, which takes most of the time;
 * a connection counts from its end on. A refused connection is closed without a reason.
 *
 * @throws {StartError} when an address cannot be bound
 */
export function startMqttsListener(options: MqttsListenerOptions): Promise<Listener> {
  const { site, limits, certificates, handshakeTimeout, metrics } = options
  const describe = describer(options)
  const tls = createTlsServer({
    ...certificates.secureContext,
    // An invalid certificate is refused by `identify`, which logs why.
    ...(certificates.asksClients && { requestCert: true, rejectUnauthorized: false }),
    handshakeTimeout,
  })
  certificates.serve(tls)
  tls.on('secureConnection', socket => {
    options.proxied?.identify(socket)
    const { peer, log, refuse } = describe(socket)
    try {
      const release = limits.hold(peer.address)
      acceptCounted(socket, release, () => acceptIdentified(options, socket, peer, log)).catch(refuse)
    } catch (error) {
      refuse(error)
    }
  })
  tls.on('tlsClientError', (error, socket) => {
    options.proxied?.identify(socket)
    const { log } = describe(socket)
    const code = codeOf(error)
    const isLate = code === 'ERR_TLS_HANDSHAKE_TIMEOUT'
    const { reason, text } = isLate
      ? new GatewayError('handshake-timeout', { hint: 'the TLS handshake' })
      : new GatewayError('tls-failed')
    if (!departures.has(code)) metrics.refused(reason)
    log.debug({ reason, code, detail: error.message }, text)
    socket.destroy()
  })
  const onConnection = (socket: Socket): void => {
    socket.on('error', ignore)
    try {
      const address = addressOf(socket)
      site?.checkAddress(address)
      limits.admit(address)()
      tls.emit('connection', socket)
    } catch (error) {
      describe(socket).refuse(error)
    }
  }
  return listen(() => createServer(socketOptions, onConnection), { ...options, purpose: 'mqtts' })
}

async function acceptIdentified(
  { identify, users, accept }: MqttsListenerOptions,
  socket: TLSSocket,
  peer: Peer,
  log: ConnectionLog,
): Promise<void> {
  const identity = await identify?.(socket, peer)
  // The client left meanwhile: no broker is dialled, and nothing would end its count as a connection of its user.
  if (socket.destroyed) return
  if (identity === undefined) return accept(socket, peer, log)
  socket.once('close', users.admit(identity.user))
  log.setBindings({ user: identity.user, identity: identity.source })
  return accept(socket, { ...peer, identity }, log)
}

/** Returns a function that describes a new socket, and handles its errors. */
function describer({ nextId, log: parentLog, metrics }: MqttListenerOptions) {
  const refusals = new RefusalLog()
  return (socket: Socket) => {
    const connection = nextId()
    const peer: Peer = {
      connection,
      address: addressOf(socket),
      port: socket.remotePort ?? 0,
      localAddress: socket.localAddress ?? '',
      localPort: socket.localPort ?? 0,
    }
    const log = new LazyLogger(parentLog, { connection, peer: peer.address })
    socket.on('error', error => log.debug({ err: error }, 'The socket failed'))
    const refuse = (cause: unknown): void => {
      const error = GatewayError.from(cause)
      metrics.refused(error.reason)
      refusals.write(log, error)
      socket.destroy()
    }
    return { peer, log, refuse }
  }
}

function addressOf({ remoteAddress }: Socket): string {
  return remoteAddress === undefined ? unixAddress : normalizeAddress(remoteAddress)
}

/** Stays for as long as the connection, so it must not hold anything; TLS reports its errors. */
function ignore(): void {}
