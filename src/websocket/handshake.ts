import { hash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { GatewayError } from '../base/errors.js'

/** 16 bytes in base64 (RFC 6455 §4.1). */
const keyPattern = /^[+/0-9A-Za-z]{22}==$/

/** A token (RFC 9110 §5.6.2). */
const tokenPattern = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** Appended to the key before it is hashed (RFC 6455 §1.3). */
const acceptGuid = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

type UpgradeRequest = Pick<IncomingMessage, 'method' | 'headers' | 'httpVersionMajor' | 'httpVersionMinor'>

/** A valid opening handshake (RFC 6455 §4.2.1). */
export interface Handshake {
  /** `Sec-WebSocket-Key` */
  readonly key: string
  /** The offered subprotocols, in the client's order of preference. */
  readonly subprotocols: readonly string[]
}

/**
 * Checks what applies to every upgrade request, whatever its endpoint: HTTP/1.1 (RFC 6455 §4.2.1), a `Host` (RFC 9112 §3.2), and no body,
 * whose bytes would be taken for frames.
 *
 * @throws {GatewayError} `bad-handshake`
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
 * Reads the client's opening handshake (RFC 6455 §4.2.1).
 *
 * @throws {GatewayError} `bad-handshake`, `unsupported-version`
 */
export function readHandshake({ method, headers }: UpgradeRequest): Handshake {
  if (method !== 'GET') throw invalid('the method must be GET')
  if (
    listElements(headers.upgrade ?? '')
      .join()
      .toLowerCase() !== 'websocket'
  )
    throw invalid('Upgrade must be websocket')
  const key = headers['sec-websocket-key'] ?? ''
  if (!keyPattern.test(key)) throw invalid('Sec-WebSocket-Key is missing or invalid')
  const version = headers['sec-websocket-version']
  if (version === undefined) throw invalid('Sec-WebSocket-Version is missing')
  if (version !== '13') throw new GatewayError('unsupported-version')
  const offer = headers['sec-websocket-protocol']
  if (offer === undefined) return { key, subprotocols: [] }
  const subprotocols = listElements(offer)
  const isValid = subprotocols.length > 0 && subprotocols.every(name => tokenPattern.test(name))
  if (!isValid || new Set(subprotocols).size < subprotocols.length) throw invalid('Sec-WebSocket-Protocol is invalid')
  return { key, subprotocols }
}

/**
 * The response that completes a handshake (RFC 6455 §4.2.2), without extensions: compression would cost memory for each connection, and time
 * on bytes that are tiny or compressed already.
 *
 * @param key the client's `Sec-WebSocket-Key`
 * @param subprotocol the chosen one, if any
 */
export function switchingProtocols(key: string, subprotocol: string | undefined): string {
  const accept = hash('sha1', key + acceptGuid, 'base64')
  return (
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
    `Sec-WebSocket-Accept: ${accept}\r\n` +
    (subprotocol === undefined ? '\r\n' : `Sec-WebSocket-Protocol: ${subprotocol}\r\n\r\n`)
  )
}

/** The elements of a list; empty ones are ignored (RFC 9110 §5.6.1.2). */
function listElements(list: string): string[] {
  return list
    .split(',')
    .map(element => element.replaceAll(/^[\t ]+|[\t ]+$/g, ''))
    .filter(element => element !== '')
}

function invalid(hint: string): GatewayError {
  return new GatewayError('bad-handshake', { hint })
}
