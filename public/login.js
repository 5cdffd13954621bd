/**
 * Login of a page: exchanges user name and password, or a token, for single-use tickets in URLs
 * (`POST /v1/tickets`). Without DOM; stores nothing.
 *
 * @typedef {object} Credentials
 * @property {string} userName empty if `password` is a token
 * @property {string} password
 */

import { asSentence } from './close-reasons.js'

/** Reasons for which other credentials may help. */
const helped = new Set(['identity-required', 'identity-refused', 'identity-expired', 'topic-refused'])

/**
 * Whether other credentials may help against a refusal.
 *
 * @param {unknown} error
 */
export function helpsLogin(error) {
  if (!(error instanceof Error)) return false
  const status = 'status' in error ? error.status : undefined
  const reason = 'reason' in error ? String(error.reason) : ''
  return status === 401 || helped.has(reason)
}

/**
 * The header of requests.
 *
 * @param {Credentials} credentials
 */
export function authorizationOf({ userName, password }) {
  return userName === '' ? `Bearer ${password}` : `Basic ${base64(`${userName}:${password}`)}`
}

/**
 * @param {Credentials} credentials
 * @returns {Promise<string>} a ticket
 * @throws {Error} with the gateway's sentence, if it refuses a ticket
 */
export async function requestTicket(credentials) {
  const authorization = authorizationOf(credentials)
  const response = await fetch('/v1/tickets', { method: 'POST', headers: { authorization }, cache: 'no-store' })
  const answer = await response.json().catch(() => ({}))
  if (response.ok && typeof answer.ticket === 'string') return answer.ticket
  if (response.status === 404) throw new Error('This gateway has no users to log in as.')
  throw new Error(asSentence(answer.detail ?? `The gateway answered ${response.status} ${response.statusText}`.trim()))
}

/** @param {string} text */
function base64(text) {
  return btoa(Array.from(new TextEncoder().encode(text), byte => String.fromCharCode(byte)).join(''))
}
