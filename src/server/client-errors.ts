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

/** The client went away, at its own will or with the network: nothing was refused, and nobody is left to be told. */
const departures: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'HPE_INVALID_EOF_STATE'])

/**
 * Deals with what Node's HTTP parser or TLS could not accept: answers with the ending's status where an answer can still
 * be read as one, counts it, and ends the connection. The listener of `clientError` on both web servers.
 */
export function sendClientError(
  error: NodeJS.ErrnoException,
  socket: Duplex,
  { log, metrics }: { readonly log: Logger; readonly metrics: Metrics },
): void {
  // What arrives after a refusal fails again, once per read, until the socket is closed.
  if (socket.writableEnded && !socket.destroyed) return
  const code = error.code ?? ''
  if (departures.has(code)) {
    socket.destroy()
    return
  }
  const ending = new GatewayError(reasons[code] ?? 'bad-request', { cause: error })
  metrics.refused(ending.reason)
  // The parser's errors carry the packet it failed on, so the error itself is not for the log.
  log.debug({ reason: ending.reason, code, detail: error.message }, ending.text)
  // Without TLS there is no way to answer; and once anything was written, an answer could end up inside of another one.
  const handshakeFailed = /^ERR_(TLS|SSL)_/.test(code)
  if (!handshakeFailed && socket.writable && 'bytesWritten' in socket && socket.bytesWritten === 0)
    writeRefusal(socket, ending)
  else socket.destroy()
}
