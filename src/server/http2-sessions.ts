import { constants, type Http2SecureServer, type Http2Session } from 'node:http2'
import { TokenBucket } from '../access/rate-limits.js'
import { type ErrorReason, GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'

/** Cancelled requests of one connection in a burst. Leaving a page cancels 100. */
const cancellations = { perSecond: 20, burst: 200 }

export interface Http2SessionsOptions {
  readonly log: Logger
  readonly metrics: Metrics
  /** Milliseconds until the first complete header block of a connection. */
  readonly handshakeTimeout: number
}

/** The HTTP/2 connections of one server. */
export interface Http2Sessions {
  cancelled(session: Http2Session): void
  /** Ends the connections after their open requests. */
  close(): void
}

/**
 * Watches the HTTP/2 connections of a server. One ends with GOAWAY (RFC 9113 §6.8) when no complete header block has come within
 * `handshakeTimeout`, and with ENHANCE_YOUR_CALM when its client cancels more than 20 requests per second.
 */
export function watchSessions(server: Http2SecureServer, options: Http2SessionsOptions): Http2Sessions {
  const { log, metrics, handshakeTimeout } = options
  const sessions = new Map<Http2Session, TokenBucket>()
  const end = (session: Http2Session, because: ErrorReason, code: number): void => {
    if (session.destroyed) return
    const error = new GatewayError(because)
    const { reason, level, text } = error
    metrics.refused(reason)
    log[level]({ peer: session.socket?.remoteAddress, reason }, text)
    session.destroy(error, code)
  }
  server.on('session', session => {
    sessions.set(session, new TokenBucket(cancellations))
    const late = (): void => end(session, 'handshake-timeout', constants.NGHTTP2_NO_ERROR)
    const timer = setTimeout(late, handshakeTimeout).unref()
    session.once('stream', () => clearTimeout(timer))
    session.once('close', () => {
      clearTimeout(timer)
      sessions.delete(session)
    })
  })
  server.on('secureConnection', socket => {
    // With allowHalfOpen, the session would stay open after the client's FIN, and HTTP/2 cannot use it. The session's own `destroy` leaves the socket
    // open for good if its client has left before the responses.
    if (socket.alpnProtocol === 'h2') socket.once('end', () => socket.destroy())
  })
  server.on('sessionError', error => log.debug({ err: error }, 'An HTTP/2 connection failed'))
  return {
    cancelled: session => {
      const bucket = sessions.get(session)
      if (bucket === undefined || bucket.take()) return
      sessions.delete(session)
      // Not while Node reads from it.
      process.nextTick(end, session, 'too-many-cancelled', constants.NGHTTP2_ENHANCE_YOUR_CALM)
    },
    close: () => {
      for (const session of sessions.keys()) session.close()
    },
  }
}
