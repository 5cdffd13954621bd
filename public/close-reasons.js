/**
 * Sentences about the end or failure of a connection, for users. Pure.
 *
 * @typedef {object} Reason
 * @property {string} sentence what happened
 * @property {string} [detail] a code and its meaning, to search for
 * @property {boolean} [final] another attempt fails in the same way until somebody changes something
 * @property {boolean} [login] another user name or password may help
 * @property {number} [retryAfter] seconds that the gateway asks to wait
 */

/** Close codes: RFC 6455 §7.4.1 and the IANA registry. */
const closeCodes = new Map([
  [1000, 'closed normally'],
  [1001, 'the gateway is going away'],
  [1002, 'protocol error'],
  [1003, 'unsupported data'],
  [1005, 'closed without a code'],
  [1006, 'ended without a close frame'],
  [1007, 'inconsistent data'],
  [1008, 'policy violation'],
  [1009, 'a message too large'],
  [1011, 'an internal error of the gateway, or a ping timeout'],
  [1012, 'the gateway restarts'],
  [1013, 'try again later'],
  [1014, 'the broker behind the gateway failed'],
  [1015, 'the TLS handshake failed'],
])

/** CONNACK return codes: MQTT 3.1.1 table 3.1. Only 3 is temporary. Those of MQTT 5 with the same meaning have the same sentences. */
const connackCodes = new Map([
  [1, 'The broker does not speak this version of MQTT.'],
  [2, 'The broker does not accept this client id.'],
  [3, 'The broker is temporarily unavailable.'],
  [4, 'The user name or the password is wrong.'],
  [5, 'The broker refused the connection: not authorized. Does it need a user name and a password?'],
])
const TEMPORARY = 3
/** Codes for which other credentials may help. */
const OF_LOGIN = [4, 5]

/**
 * The end of a WebSocket that was open.
 *
 * @param {{ code: number, reason: string }} event
 * @returns {Reason}
 */
export function explainClose({ code, reason }) {
  const meaning = closeCodes.get(code)
  const detail = `close code ${code}${meaning === undefined ? '' : `: ${meaning}`}`
  if (reason !== '') return { sentence: asSentence(reason), detail }
  if (code === 1006) {
    return { sentence: 'The connection was lost: the network or the gateway ended it without a close frame.', detail }
  }
  return { sentence: 'The gateway closed the connection and gave no reason.', detail }
}

/** Reason codes of MQTT 5 (§2.4), for the middle of a sentence. */
const reasonCodes = new Map([
  [0x81, 'malformed packet'],
  [0x82, 'protocol error'],
  [0x83, 'the broker does not accept it'],
  [0x85, 'the client id is not valid'],
  [0x86, 'wrong user name or password'],
  [0x87, 'not authorized'],
  [0x88, 'the server is unavailable'],
  [0x89, 'the server is busy'],
  [0x8a, 'banned'],
  [0x8b, 'the server is shutting down'],
  [0x8d, 'keep alive timeout'],
  [0x8e, 'the same client id connected from another connection'],
  [0x8f, 'the topic filter is not valid'],
  [0x90, 'the topic is not valid'],
  [0x93, 'receive maximum exceeded'],
  [0x95, 'the packet is too large'],
  [0x96, 'the message rate is too high'],
  [0x97, 'quota exceeded'],
  [0x98, 'administrative action'],
  [0x99, 'the payload is not of its format'],
  [0x9a, 'retained messages are not supported'],
  [0x9b, 'this QoS is not supported'],
  [0x9e, 'shared subscriptions are not supported'],
  [0x9f, 'too many new connections'],
  [0xa2, 'wildcards are not supported'],
])
/** Reason codes of CONNACK after which another try may succeed. */
const temporaryCodes = new Set([0x80, 0x83, 0x88, 0x89, 0x96, 0x97, 0x9f])
/** CONNACK return codes of MQTT 3, by reason code of MQTT 5. */
const oldCodes = new Map([
  [0x84, 1],
  [0x85, 2],
  [0x88, 3],
  [0x86, 4],
  [0x87, 5],
])

/** @param {number} code */
function hex(code) {
  return `0x${code.toString(16).toUpperCase().padStart(2, '0')}`
}

/**
 * An MQTT CONNECT that the broker refused.
 *
 * @param {number} code the return code of MQTT 3, or the reason code of MQTT 5
 * @param {string} [reasonString] of MQTT 5
 * @returns {Reason}
 */
export function explainConnack(code, reasonString) {
  const isNew = code >= 0x80
  const old = isNew ? oldCodes.get(code) : code
  const phrase = reasonCodes.get(code)
  const kind = isNew ? `reason code ${hex(code)}` : `return code ${code}`
  return {
    sentence:
      connackCodes.get(old ?? Number.NaN) ??
      (phrase === undefined ? 'The broker refused the connection.' : `The broker refused the connection: ${phrase}.`),
    detail: `MQTT CONNACK ${kind}${reasonString ? `: ${reasonString}` : ''}`,
    final: isNew ? !temporaryCodes.has(code) : connackCodes.has(code) && code !== TEMPORARY,
    ...(old !== undefined && OF_LOGIN.includes(old) && { login: true }),
  }
}

/**
 * Whether a refusal is of the version of MQTT: return code 1 of MQTT 3, reason code 0x84 of MQTT 5.
 *
 * @param {number | undefined} code
 */
export function isVersionRefused(code) {
  return code === 1 || code === 0x84
}

/**
 * A DISCONNECT of MQTT 5 from the broker.
 *
 * @param {{ reasonCode?: number, properties?: { reasonString?: string } }} packet
 * @returns {Reason | undefined} undefined if it says nothing
 */
export function explainDisconnect({ reasonCode = 0, properties }) {
  const text = properties?.reasonString || reasonCodes.get(reasonCode)
  if (text === undefined) return undefined
  return { sentence: asSentence(text), detail: `MQTT DISCONNECT reason code ${hex(reasonCode)}` }
}

/**
 * A refused message or subscription.
 *
 * @param {'message' | 'subscription'} what
 * @param {number} code
 * @param {string} [reasonString] of MQTT 5
 * @returns {string}
 */
export function explainRefusal(what, code, reasonString) {
  const text = reasonString || reasonCodes.get(code)
  const why = text === undefined ? '' : `: ${text.replace(/[.]$/, '')}`
  return `The broker refused this ${what}${why} (reason code ${hex(code)}).`
}

/**
 * The reason of an error of MQTT.js.
 *
 * @param {{ code?: number | string, message: string }} error
 * @param {string} [reasonString] of the CONNACK
 * @returns {Reason | undefined} undefined if only the socket has the reason
 */
export function explainError({ code, message }, reasonString) {
  if (typeof code === 'number' && /^Connection refused/.test(message)) return explainConnack(code, reasonString)
  if (message === 'connack timeout') {
    return { sentence: 'The gateway did not answer in time.', detail: 'no MQTT CONNACK within the limit' }
  }
  if (message === 'Keepalive timeout') {
    return { sentence: 'The broker did not respond to a ping.', detail: 'MQTT PINGRESP missing' }
  }
  // Errors of the WebSocket have an event, and the reason is in its close frame.
  if (/^WebSocket error|^Connection closed/.test(message)) return undefined
  return { sentence: 'The gateway sent invalid MQTT.', detail: message }
}

/**
 * @param {string} text
 * @returns {string} with a capital letter and a full stop
 */
export function asSentence(text) {
  const trimmed = text.trim()
  const capital = trimmed.charAt(0).toUpperCase() + trimmed.slice(1)
  return /[.!?]$/.test(capital) ? capital : `${capital}.`
}
