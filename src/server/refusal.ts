import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import type { GatewayError } from '../base/errors.js'

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
