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

/** CONNACK return codes: MQTT 3.1.1 table 3.1. Only 3 is temporary. */
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

/**
 * An MQTT CONNECT that the broker refused.
 *
 * @param {string} pahoMessage such as "AMQJS0006E Bad Connack return code:5 …": the only place where Paho has the code
 * @returns {Reason}
 */
export function explainConnack(pahoMessage) {
  const code = Number(/return code:\s*(\d+)/.exec(pahoMessage)?.[1] ?? Number.NaN)
  return {
    sentence: connackCodes.get(code) ?? 'The broker refused the connection.',
    detail: Number.isNaN(code) ? pahoMessage : `MQTT CONNACK return code ${code}`,
    final: connackCodes.has(code) && code !== TEMPORARY,
    ...(OF_LOGIN.includes(code) && { login: true }),
  }
}

/** Paho's error codes with more information than a CloseEvent. */
const PAHO = { connectTimeout: 1, pingTimeout: 4, internal: 5, connack: 6 }

/**
 * The reason of an error of Paho.
 *
 * @param {number} errorCode
 * @param {string} errorMessage
 * @returns {Reason | undefined} undefined if only the socket has the reason
 */
export function explainPaho(errorCode, errorMessage) {
  switch (errorCode) {
    case PAHO.connack:
      return explainConnack(errorMessage)
    case PAHO.connectTimeout:
      return { sentence: 'The gateway did not answer in time.', detail: 'no MQTT CONNACK within the limit' }
    case PAHO.pingTimeout:
      return { sentence: 'The broker did not respond to a ping.', detail: 'MQTT PINGRESP missing' }
    case PAHO.internal:
      return { sentence: 'The gateway sent invalid MQTT.', detail: errorMessage }
    default:
      return undefined
  }
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
