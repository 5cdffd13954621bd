import { createServer, type IncomingMessage, ServerResponse } from 'node:http'
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type Http2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { SecureContextOptions, TlsOptions } from 'node:tls'
import { GatewayError } from '../base/errors.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import type { LimitsConfig } from '../config/schema.js'
import type { AccessLog } from '../http/access-log.js'
import { newestResponse, owesResponse, TrackedResponse } from '../http/last-response.js'
import type { HttpResponse, UnreadResponses } from '../http/unread-responses.js'
import type { PendingChallenges } from './acme/pending-challenges.js'
import { endValidations, selectProtocol } from './acme/tls-alpn.js'
import type { SecureServer } from './certificates.js'
import { watchSessions } from './http2-sessions.js'
import { type Listener, type ListenOptions, listen } from './listener.js'
import type { PipelinedRequests } from './pipelined-requests.js'
import { endGently, sendClientError, writeRefusal } from './refusal.js'
import type { StreamQueue } from './stream-queue.js'

/** Handles requests: a Fastify app after `ready()`, for HTTP/1.1 and HTTP/2. */
export interface WebApp {
  routing(request: IncomingMessage | Http2ServerRequest, response: ServerResponse | Http2ServerResponse): void
}

export interface WebServerOptions extends Omit<ListenOptions, 'purpose'> {
  readonly app: WebApp
  /** Handles upgrades to WebSocket, also from the TLS port. */
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  readonly limits: Pick<LimitsConfig, 'headerSize' | 'handshakeTimeout' | 'bodyTimeout'>
  /** Bounds the unread bytes of complete responses. */
  readonly unreadResponses: UnreadResponses
  readonly pipelined: PipelinedRequests
  /** New requests of HTTP/2. */
  readonly streams: StreamQueue
  /** Gets a line for what Node's parser refuses; left out for none. */
  readonly accessLog?: AccessLog | undefined
  /** Told of each request. */
  readonly slices?: SliceMonitor | undefined
  /** Milliseconds of silence after which a connection that is no WebSocket ends. Default: 2 minutes. */
  readonly idleTimeout?: number
}

/** Provides the certificate of a TLS server, now and whenever it changes; see `Certificates`. */
export interface CertificateSource {
  readonly secureContext: SecureContextOptions & Pick<TlsOptions, 'SNICallback'>
  /** Whether clients are asked for a certificate. Clients without a valid one are admitted all the same. */
  readonly asksClients?: boolean
  serve(server: SecureServer): void
}

/** HTTP/1.1: milliseconds that a connection stays open between two requests. */
const keepAliveTimeout = 5000

/** HTTP/2: concurrent requests of one connection; browsers need no more than 100 (RFC 9113 §6.5.2). */
const maxConcurrentStreams = 100

/** HTTP/2: memory of one connection, in megabytes. */
const maxSessionMemory = 8

/** HTTP/2: invalid frames, and refused streams, before a connection ends. */
const maxOffences = 100

const defaultIdleTimeout = 120_000

/**
 * Starts the plain web server: HTTP/1.1 and WebSocket.
 *
 * @throws {StartError} when an address cannot be bound
 */
export async function startHttp(options: WebServerOptions): Promise<Listener> {
  const closers: (() => void)[] = []
  const makeServer = (): Server => {
    const server = createServer({ ...http1Settings(options), ServerResponse: TrackedResponse })
    server.on('connection', socket => options.pipelined.read(socket))
    server.setTimeout(options.idleTimeout ?? defaultIdleTimeout)
    closers.push(serveRequests(server, options))
    return server
  }
  return draining(await listen(makeServer, { ...options, purpose: 'http' }), closers)
}

/**
 * Starts the TLS web server: HTTP/2, HTTP/1.1 and WebSocket on one port, by ALPN.
 *
 * RFC 8441 (WebSocket in HTTP/2) is not announced, so browsers open an HTTP/1.1 connection for a WebSocket; a tunnel
 * then has a TCP connection and its flow control for itself.
 *
 * @throws {StartError} when an address cannot be bound
 */
export async function startHttps(
  options: WebServerOptions & {
    readonly certificates: CertificateSource
    /** Certificates for CAs that check a name. */
    readonly challenges?: PendingChallenges | undefined
  },
): Promise<Listener> {
  const { certificates, challenges, limits } = options
  const closers: (() => void)[] = []
  const makeServer = (): Server => {
    const server = createSecureServer({
      ...certificates.secureContext,
      // Whether it is valid is for access/ to say, in an answer that can be read.
      ...(certificates.asksClients && { requestCert: true, rejectUnauthorized: false }),
      ...(challenges && { ALPNCallback: selectProtocol(challenges) }),
      allowHTTP1: true,
      Http1ServerResponse: TrackedResponse,
      // The end of one direction of a tunnel must not end the other, as on the plain server.
      allowHalfOpen: true,
      handshakeTimeout: limits.handshakeTimeout,
      maxSessionMemory,
      maxSessionInvalidFrames: maxOffences,
      maxSessionRejectedStreams: maxOffences,
      settings: { enablePush: false, maxConcurrentStreams, maxHeaderListSize: limits.headerSize },
    })
    // Node reads these from the server for its HTTP/1.1 connections, but takes none of them as an option here.
    Object.assign(server, http1Settings(options))
    server.setTimeout(options.idleTimeout ?? defaultIdleTimeout)
    if (challenges) endValidations(server)
    server.on('secureConnection', socket => {
      if (socket.alpnProtocol !== 'h2') options.pipelined.read(socket)
    })
    certificates.serve(server)
    const { log, metrics } = options
    const sessions = watchSessions(server, { log, metrics, handshakeTimeout: limits.handshakeTimeout })
    closers.push(serveRequests(server, options, sessions.cancelled), sessions.close)
    return server
  }
  return draining(await listen(makeServer, { ...options, purpose: 'https' }), closers)
}

function http1Settings({ limits }: WebServerOptions) {
  return {
    maxHeaderSize: limits.headerSize,
    headersTimeout: limits.handshakeTimeout,
    // Later than the app gives up, which can say why.
    requestTimeout: limits.handshakeTimeout + limits.bodyTimeout + 1000,
    // A time limit is kept this exactly; each check walks the connections that have no whole request yet.
    connectionsCheckingInterval: Math.max(20, Math.min(1000, limits.handshakeTimeout / 10)),
    keepAliveTimeout,
    // RFC 9112 §3.2: a request without Host is answered 400.
    requireHostHeader: true,
    noDelay: true,
  }
}

/**
 * Gives requests to the app and upgrades to their handler. Returns a function that makes connections end after their response.
 *
 * @param cancelled counts a stream of HTTP/2 that its client has reset before the response was complete
 */
function serveRequests(
  server: Server | Http2SecureServer,
  options: WebServerOptions,
  cancelled: (session: Http2Session) => void = () => {},
): () => void {
  const { app, unreadResponses, pipelined, streams, accessLog, slices, log, metrics } = options
  let closing = false
  function over(this: HttpResponse): void {
    unreadResponses.delete(this)
  }
  function answered(this: ServerResponse): void {
    unreadResponses.delete(this)
    // An answer that began before the close leaves its connection waiting for the next request.
    if (closing) this.req.socket.end()
  }
  // Without this, Node would keep a stream with a pending write until its connection ends, without a 'close' event.
  function aborted(this: ServerHttp2Stream): void {
    if (this.session) cancelled(this.session)
    this.destroy()
  }
  server.on('request', (request: IncomingMessage | Http2ServerRequest, response: HttpResponse) => {
    const handle = (): void => {
      slices?.begin('http request', request)
      unreadResponses.add(response)
      app.routing(request, response)
    }
    if ('stream' in response) {
      response.stream.once('aborted', aborted)
      response.on('close', over)
      streams.add(response.stream, handle)
    } else {
      response.on('close', answered)
      pipelined.handle(response.req, response, () => {
        if (closing) response.setHeader('Connection', 'close')
        handle()
      })
    }
  })
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, first: Buffer) => {
    const head = pipelined.release(request.socket, first)
    const isWanted = wantsWebSocket(request)
    if (isWanted ? owesResponse(request.socket) : newestResponse(request.socket) !== undefined)
      refuseUpgradeBehind(socket, options)
    else if (isWanted) options.onUpgrade(request, socket, head)
    else respondWithoutUpgrade(request, socket, options)
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) =>
    sendClientError(error, socket, { log, metrics, accessLog }),
  )
  return () => {
    closing = true
  }
}

/** Refuses an upgrade that was pipelined behind unanswered requests. No response is possible, to any of them. */
function refuseUpgradeBehind(socket: Duplex, { log, metrics }: WebServerOptions): void {
  const { reason, text } = new GatewayError('bad-handshake')
  metrics.refused(reason)
  log.debug({ reason, detail: 'pipelined behind an unanswered request' }, text)
  socket.on('error', error => log.debug({ err: error }, 'The socket failed'))
  socket.destroy()
}

/** Whether a request asks for an upgrade to WebSocket, among others. */
export function wantsWebSocket(request: IncomingMessage): boolean {
  const offered = request.headers.upgrade?.split(',') ?? []
  return offered.some(protocol => protocol.trim().toLowerCase() === 'websocket')
}

/**
 * Answers a request as if it had not asked for an upgrade, which a server may always do (RFC 9110 §7.8): curl asks for
 * `h2c`. Node has given the connection away by then, so it ends with the answer, and a body could not be read.
 */
function respondWithoutUpgrade(request: IncomingMessage, socket: Duplex, options: WebServerOptions): void {
  const { app, log, metrics, idleTimeout = defaultIdleTimeout } = options
  socket.on('error', error => log.debug({ err: error }, 'The socket failed'))
  const isRead = request.method === 'GET' || request.method === 'HEAD'
  // Node checks this only of requests without an upgrade.
  const lacksHost = request.headers.host === undefined && request.httpVersionMinor > 0
  if (!isRead || lacksHost) {
    metrics.refused('bad-request')
    const hint = lacksHost ? 'Host is missing' : 'the only upgrade there is here is websocket'
    writeRefusal(socket, new GatewayError('bad-request', { hint }))
    return
  }
  request.socket.setTimeout(idleTimeout, () => socket.destroy())
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(request.socket)
  response.once('finish', () => {
    response.detachSocket(request.socket)
    endGently(socket)
  })
  app.routing(request, response)
}

/** A listener whose connections are told to finish when it closes. */
function draining(listener: Listener, closers: readonly (() => void)[]): Listener {
  return {
    ...listener,
    close: () => {
      for (const finish of closers) finish()
      return listener.close()
    },
  }
}
