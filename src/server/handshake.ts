import type { IncomingMessage } from 'node:http'
import { GatewayError } from '../base/errors.js'

/** 16 bytes in base64 (RFC 6455 §4.1). */
const keyForm = /^[+/0-9A-Za-z]{22}==$/

/** A token (RFC 9110 §5.6.2). */
const tokenForm = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** What is looked at of a request that asks for a WebSocket. */
export type UpgradeRequest = Pick<IncomingMessage, 'method' | 'headers' | 'httpVersionMajor' | 'httpVersionMinor'>

/**
 * Checks what is asked of every request that asks for a WebSocket, whatever endpoint it is for: HTTP/1.1 (RFC 6455 §4.2.1), a `Host`
 * (RFC 9112 §3.2), and no body, whose bytes would be taken for frames.
 *
 * @throws {Ending} `bad-handshake`
 */
export function checkUpgradeRequest({ headers, httpVersionMajor, httpVersionMinor }: UpgradeRequest): void {
  if (httpVersionMajor !== 1 || httpVersionMinor < 1)
    throw invalid('the version must be HTTP/1.1 (nginx: proxy_http_version 1.1)')
  if (headers.host === undefined) throw invalid('Host is missing')
  if (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) !== 0) {
    throw invalid('it must have no body')
  }
}

/**
 * Checks what every WebSocket endpoint asks of a handshake (RFC 6455 §4.2.1), before it is looked at who it is from: one
 * that cannot succeed costs no ticket, and no time to look at a password. Empty elements of its lists are removed from `headers`.
 *
 * @throws {Ending} `bad-handshake`, `unsupported-version`
 */
export function checkHandshake({ method, headers }: UpgradeRequest): void {
  if (method !== 'GET') throw invalid('the method must be GET')
  headers.upgrade = elementsOf(headers.upgrade ?? '').join(', ')
  if (headers.upgrade.toLowerCase() !== 'websocket') throw invalid('Upgrade must be websocket')
  if (!keyForm.test(headers['sec-websocket-key'] ?? '')) throw invalid('Sec-WebSocket-Key is missing or invalid')
  const version = headers['sec-websocket-version']
  if (version === undefined) throw invalid('Sec-WebSocket-Version is missing')
  if (version !== '13') throw new GatewayError('unsupported-version')
  const offers = headers['sec-websocket-protocol']
  if (offers === undefined) return
  const names = elementsOf(offers)
  const isList = names.length > 0 && names.every(name => tokenForm.test(name)) && new Set(names).size === names.length
  if (!isList) throw invalid('Sec-WebSocket-Protocol is invalid')
  headers['sec-websocket-protocol'] = names.join(', ')
}

/** The elements of a list; empty ones are ignored (RFC 9110 §5.6.1.2). */
function elementsOf(list: string): string[] {
  return list
    .split(',')
    .map(element => element.replaceAll(/^[\t ]+|[\t ]+$/g, ''))
    .filter(element => element !== '')
}

function invalid(hint: string): GatewayError {
  return new GatewayError('bad-handshake', { hint })
}
