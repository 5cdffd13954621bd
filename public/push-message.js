/** The row of an event of push in the log. */

import { describePayload } from './payload.js'

/**
 * @param {import('./mqway.js').PushEvent} event
 * @returns {Omit<import('./message-store.js').Message, 'id'>}
 */
export function messageOf({ topic, time, retained = false, payload, payloadBase64 }) {
  const bytes =
    payloadBase64 === undefined
      ? new TextEncoder().encode(payload)
      : Uint8Array.from(atob(payloadBase64), character => character.charCodeAt(0))
  return {
    topic,
    time: new Date(time),
    payload: describePayload(bytes),
    retained,
    duplicate: false,
    hues: [0],
  }
}
