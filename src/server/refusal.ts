import { STATUS_CODES } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type ErrorReason, GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import type { AccessLog } from '../http/access-log.js'

/** Milliseconds in which a client has to read a response and close. */
export const lingerTime = 2000

/**
 * Writes a refusal to the socket of a request, and ends the connection.
 *
 * @param headers added to those of every refusal, or in place of them
 * @param text default: the error's text for any client
 */
export function writeRefusal(
  socket: Duplex,
  error: GatewayError,
  headers: Readonly<Record<string, string>> = {},
  text = error.text,
): void {
  const body = `${text}\n`
  const all: Record<string, string> = {
    Connection: 'close',
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(body)),
    // An origin server with a clock sends the time (RFC 9110 §6.6.1).
    Date: new Date().toUTCString(),
    'X-Content-Type-Options': 'nosniff',
    ...(error.retryAfter === undefined ? {} : { 'Retry-After': String(error.retryAfter) }),
    ...headers,
  }
  const head = [
    `HTTP/1.1 ${error.httpStatus} ${STATUS_CODES[error.httpStatus] ?? ''}`,
    ...Object.entries(all).map(([name, value]) => `${name}: ${value}`),
  ]
  endGently(socket, `${head.join('\r\n')}\r\n\r\n${body}`)
}

/**
 * Ends a socket so that the client receives everything that was written.
 *
 * Closing a TCP socket with unread bytes makes the kernel send a reset, which can overtake the response. So further bytes are read and
 * dropped until the client has closed as well, for two seconds at most (RFC 9112 §9.6).
 */
export function endGently(socket: Duplex, last?: string): void {
  if (socket.destroyed) return
  const timer = setTimeout(() => socket.destroy(), lingerTime)
  socket.once('close', () => clearTimeout(timer))
  socket.end(last)
  socket.resume()
}

const reasons: Readonly<Record<string, ErrorReason>> = {
  HPE_HEADER_OVERFLOW: 'headers-too-large',
  ERR_HTTP_REQUEST_TIMEOUT: 'handshake-timeout',
  ERR_TLS_HANDSHAKE_TIMEOUT: 'handshake-timeout',
}

/** The client has disconnected; no response is possible. */
const departures: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'HPE_INVALID_EOF_STATE'])

export interface ClientErrorOptions {
  readonly log: Logger
  readonly metrics: Metrics
  readonly accessLog?: AccessLog | undefined
}

/**
 * Handles what Node's HTTP parser or TLS refuses: sends the error's status if a response is still possible, counts it, and ends the connection.
 * The `clientError` listener of both web servers.
 */
export function sendClientError(
  error: NodeJS.ErrnoException,
  socket: Duplex,
  { log, metrics, accessLog }: ClientErrorOptions,
): void {
  // After a refusal, each further read fails again until the socket is closed.
  if (socket.writableEnded && !socket.destroyed) return
  const code = error.code ?? ''
  if (departures.has(code)) {
    socket.destroy()
    return
  }
  const gatewayError = new GatewayError(reasons[code] ?? 'bad-request', { cause: error })
  metrics.refused(gatewayError.reason)
  // The parser's errors carry the packet, which must not be logged.
  log.debug({ reason: gatewayError.reason, code, detail: error.message }, gatewayError.text)
  // No response without TLS, nor within another response.
  const handshakeFailed = /^ERR_(TLS|SSL)_/.test(code)
  if (!handshakeFailed && socket.writable && 'bytesWritten' in socket && socket.bytesWritten === 0) {
    if (socket instanceof Socket) accessLog?.malformed(socket, gatewayError.httpStatus)
    writeRefusal(socket, gatewayError)
  } else socket.destroy()
}
