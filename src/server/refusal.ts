import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import type { GatewayError } from '../base/errors.js'

/** How long a client has to take an answer and to close, in milliseconds. */
export const lingerTime = 2000

/**
 * Answers a request on its bare socket with what an ending says, and ends the connection.
 *
 * @param headers added to, or instead of, those that every refusal has
 * @param text default: the ending's for any client
 */
export function writeRefusal(
  socket: Duplex,
  ending: GatewayError,
  headers: Readonly<Record<string, string>> = {},
  text = ending.text,
): void {
  const body = `${text}\n`
  const all: Record<string, string> = {
    Connection: 'close',
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(body)),
    // RFC 9110 §6.6.1: an origin server with a clock says what time it is.
    Date: new Date().toUTCString(),
    'X-Content-Type-Options': 'nosniff',
    ...(ending.retryAfter === undefined ? {} : { 'Retry-After': String(ending.retryAfter) }),
    ...headers,
  }
  const head = [
    `HTTP/1.1 ${ending.httpStatus} ${STATUS_CODES[ending.httpStatus] ?? ''}`,
    ...Object.entries(all).map(([name, value]) => `${name}: ${value}`),
  ]
  endGently(socket, `${head.join('\r\n')}\r\n\r\n${body}`)
}

/**
 * Ends a socket so that the other side gets everything that was written.
 *
 * Closing a TCP socket with unread bytes makes the kernel send a reset, which can overtake the answer. So what still
 * arrives is read and thrown away until the client has closed as well, for two seconds at most (RFC 9112 §9.6).
 */
export function endGently(socket: Duplex, last?: string): void {
  if (socket.destroyed) return
  const timer = setTimeout(() => socket.destroy(), lingerTime)
  socket.once('close', () => clearTimeout(timer))
  socket.end(last)
  socket.resume()
}
