import type { Duplex } from 'node:stream'
import { type ErrorReason, GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import { writeRefusal } from './refusal.js'

const reasons: Readonly<Record<string, ErrorReason>> = {
  HPE_HEADER_OVERFLOW: 'headers-too-large',
  ERR_HTTP_REQUEST_TIMEOUT: 'handshake-timeout',
  ERR_TLS_HANDSHAKE_TIMEOUT: 'handshake-timeout',
}

/** The client has disconnected; no response is possible. */
const departures: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'HPE_INVALID_EOF_STATE'])

/**
 * Handles what Node's HTTP parser or TLS refuses: sends the error's status if a response is still possible, counts it, and ends the connection.
 * The `clientError` listener of both web servers.
 */
export function sendClientError(
  error: NodeJS.ErrnoException,
  socket: Duplex,
  { log, metrics }: { readonly log: Logger; readonly metrics: Metrics },
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
  if (!handshakeFailed && socket.writable && 'bytesWritten' in socket && socket.bytesWritten === 0)
    writeRefusal(socket, gatewayError)
  else socket.destroy()
}
