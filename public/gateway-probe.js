/**
 * Requests over HTTP the reason of a failed WebSocket handshake: browsers hide the status of a refused upgrade from the page,
 * but not that of an ordinary request.
 *
 * @typedef {import('./close-reasons.js').Reason} Reason
 */

import { asSentence, explainClose } from './close-reasons.js'

const TIME_LIMIT_MS = 4_000
const MAX_SENTENCE = 300
/** Time for the CloseEvent after the `error` event, on which Paho reports. */
const CLOSE_EVENT_MS = 500

/**
 * The reason of a WebSocket's end: from its close event, or from a request if it never opened.
 *
 * @param {import('./socket-recorder.js').SocketRecord | undefined} record
 * @param {string} path
 * @returns {Promise<Reason>}
 */
export async function explainSocket(record, path) {
  if (record === undefined || !record.opened) return probeGateway(path)
  /** @type {Promise<undefined>} */
  const late = new Promise(resolve => setTimeout(resolve, CLOSE_EVENT_MS))
  const event = await Promise.race([record.closed, late])
  return explainClose(event ?? { code: 1006, reason: '' })
}

/**
 * @param {string} path the path of the WebSocket endpoint
 * @returns {Promise<Reason>}
 */
export async function probeGateway(path) {
  const endpoint = await ask(path)
  if (endpoint === undefined) {
    // Loopback needs no network.
    return navigator.onLine || isLoopback(location.hostname)
      ? { sentence: 'Nothing answers at this address. Is the gateway running?', detail: 'the handshake failed' }
      : { sentence: 'This device is offline.', detail: 'the browser reports no network' }
  }
  if (endpoint.status === 404) {
    return { sentence: `There is no WebSocket endpoint at ${path}.`, detail: 'HTTP 404', final: true }
  }
  if (endpoint.status === 401) return { ...endpoint.reason, login: true }
  // Other statuses of a plain GET, such as 426 Upgrade Required, are not the reason of the failed handshake.
  if ([401, 403, 429, 500, 502, 503, 504].includes(endpoint.status)) return endpoint.reason
  const readiness = await ask('/readyz')
  if (readiness !== undefined && readiness.status >= 500) {
    return {
      ...readiness.reason,
      sentence: 'The gateway is running, but its MQTT broker is unavailable.',
      detail: `HTTP ${readiness.status} from /readyz`,
    }
  }
  return {
    sentence: 'The gateway answers, but refused the WebSocket handshake.',
    detail: `HTTP ${endpoint.status} for a plain request to ${path}`,
  }
}

/**
 * Whether a host is this device (RFC 6761 §6.3, RFC 1122 §3.2.1.3).
 *
 * @param {string} hostname as in a URL
 */
export function isLoopback(hostname) {
  return /^(localhost|.+\.localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)
}

/**
 * @param {string} path
 * @returns {Promise<{ status: number, reason: Reason } | undefined>} undefined without a response in time
 */
async function ask(path) {
  try {
    const response = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(TIME_LIMIT_MS) })
    const seconds = Number(response.headers.get('Retry-After') ?? Number.NaN)
    /** @type {Reason} */
    const reason = { sentence: await sentenceOf(response), detail: `HTTP ${response.status}` }
    if (Number.isFinite(seconds)) reason.retryAfter = seconds
    return { status: response.status, reason }
  } catch {
    return undefined
  }
}

/** @param {Response} response */
async function sentenceOf(response) {
  const fallback = `The gateway answered ${response.status} ${response.statusText}`.trim()
  const type = response.headers.get('Content-Type') ?? ''
  if (type.includes('html')) return asSentence(fallback)
  const body = (await response.text()).slice(0, MAX_SENTENCE)
  if (!type.includes('json')) return asSentence(body.split('\n', 1)[0] || fallback)
  try {
    const { detail, title, message } = JSON.parse(body)
    return asSentence(String(detail ?? title ?? message ?? fallback))
  } catch {
    return asSentence(fallback)
  }
}
