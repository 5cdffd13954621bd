import type { IncomingMessage } from 'node:http'
import { Ending } from '../endings.js'

/** 16 bytes in base64 (RFC 6455 §4.1). */
const keyForm = /^[+/0-9A-Za-z]{22}==$/

/** A list of tokens (RFC 9110 §5.6.2), none of them empty. */
const listForm = /^[\t ]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[\t ]*(?:,[\t ]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[\t ]*)*$/

/**
 * Checks what every WebSocket endpoint asks of a handshake (RFC 6455 §4.2.1), before it is looked at who it is from: one
 * that cannot succeed costs no ticket, and no time to look at a password.
 *
 * @throws {Ending} `bad-handshake`, `unsupported-version`
 */
export function checkHandshake({ method, headers }: Pick<IncomingMessage, 'method' | 'headers'>): void {
  if (method !== 'GET') throw invalid('the method must be GET')
  if (headers.upgrade?.toLowerCase() !== 'websocket') throw invalid('Upgrade must be websocket')
  if (!keyForm.test(headers['sec-websocket-key'] ?? '')) throw invalid('Sec-WebSocket-Key is missing or invalid')
  const version = headers['sec-websocket-version']
  if (version === undefined) throw invalid('Sec-WebSocket-Version is missing')
  if (version !== '13') throw new Ending('unsupported-version')
  if (!isListOfDifferent(headers['sec-websocket-protocol'])) throw invalid('Sec-WebSocket-Protocol is invalid')
}

function isListOfDifferent(header: string | undefined): boolean {
  if (header === undefined) return true
  const names = header.split(',').map(name => name.trim())
  return listForm.test(header) && new Set(names).size === names.length
}

function invalid(hint: string): Ending {
  return new Ending('bad-handshake', { hint })
}
