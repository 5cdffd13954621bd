/**
 * The one table of reasons why a request or a connection is refused or ends, with its WebSocket close code, HTTP status, reason
 * code of MQTT 5, log level and metric label.
 */

import { truncate } from './truncate.js'

/** The log level of an error: `debug` or `info` in normal operation. */
export type ErrorLevel = 'debug' | 'info' | 'warn' | 'error'

interface ErrorRow {
  /** The close reason (at most 123 bytes of UTF-8, RFC 6455 §5.5), or the HTTP body. */
  readonly text: string
  /** Default: `info`. */
  readonly level?: ErrorLevel
  /** The WebSocket close code (RFC 6455 §7.4 and the IANA registry), after the upgrade. */
  readonly closeCode?: number
  /** The HTTP status, before the upgrade. */
  readonly httpStatus?: number
  /** The reason code of MQTT 5 (§2.4). Default: 0x80, unspecified error. */
  readonly mqttReason?: number
  /** Seconds for the `Retry-After` header. */
  readonly retryAfter?: number
}

const table = {
  // Before the upgrade: an HTTP response.
  'bad-handshake': { httpStatus: 400, text: 'This is not a valid WebSocket handshake' },
  'bad-request': { httpStatus: 400, text: 'This is not a valid HTTP request' },
  'invalid-parameter': { httpStatus: 400, text: 'A parameter is invalid' },
  'headers-too-large': { httpStatus: 431, text: 'The request headers are too large' },
  'url-too-long': { httpStatus: 414, text: 'The URL is too long' },
  'body-too-large': { httpStatus: 413, text: 'The body of the request is too large' },
  'unsupported-encoding': { httpStatus: 415, text: 'Content-Encoding may be gzip, deflate or br here, or left out' },
  'body-timeout': { httpStatus: 408, text: 'The body of the request did not arrive in time' },
  'handshake-timeout': { httpStatus: 408, text: 'The request did not arrive in time' },
  'proxy-header-invalid': { level: 'warn', text: 'The connection does not begin with a valid PROXY protocol header' },
  'tls-failed': { level: 'debug', text: 'The TLS handshake failed' },
  'unknown-path': { httpStatus: 404, text: 'There is no WebSocket endpoint at this path' },
  'unsupported-version': { httpStatus: 426, text: 'Only WebSocket version 13 is spoken here' },
  'unsupported-subprotocol': { httpStatus: 400, text: 'None of the offered subprotocols is spoken here' },
  'subprotocol-required': { httpStatus: 400, text: 'Sec-WebSocket-Protocol is required here' },
  'host-refused': {
    httpStatus: 421,
    level: 'warn',
    text: 'The host of this request is not served here (the option hosts names those that are)',
  },
  'address-refused': { mqttReason: 0x8a, httpStatus: 403, closeCode: 1008, text: 'Your address may not connect here' },
  'path-refused': { httpStatus: 403, text: 'This path is not served' },
  'https-required': { httpStatus: 308, text: 'This is served over https alone' },
  'origin-refused': { httpStatus: 403, level: 'warn', text: 'Pages of this origin may not connect' },
  'too-many-connections': {
    mqttReason: 0x89,
    httpStatus: 503,
    retryAfter: 10,
    level: 'warn',
    text: 'All connections are taken',
  },
  'too-many-from-address': {
    mqttReason: 0x97,
    httpStatus: 429,
    retryAfter: 10,
    level: 'warn',
    text: 'Too many connections from your address',
  },
  'too-many-from-user': {
    mqttReason: 0x97,
    httpStatus: 429,
    retryAfter: 10,
    closeCode: 1013,
    level: 'warn',
    text: 'Too many connections of this user',
  },
  'connecting-too-fast': {
    mqttReason: 0x9f,
    httpStatus: 429,
    retryAfter: 1,
    level: 'warn',
    text: 'Too many new connections per second from your address',
  },
  'identity-required': { mqttReason: 0x87, httpStatus: 401, closeCode: 1008, text: 'Authentication required' },
  'identity-refused': {
    mqttReason: 0x86,
    httpStatus: 401,
    closeCode: 1008,
    level: 'warn',
    text: 'The credentials are not accepted',
  },
  'identity-unavailable': {
    mqttReason: 0x88,
    httpStatus: 503,
    retryAfter: 5,
    closeCode: 1013,
    level: 'error',
    text: 'Authentication is temporarily unavailable',
  },
  'too-many-requests': {
    httpStatus: 429,
    retryAfter: 1,
    level: 'warn',
    text: 'Too many requests per second from your address',
  },
  'too-many-pipelined': {
    httpStatus: 503,
    retryAfter: 1,
    text: 'Too many requests from your address wait for the responses before theirs',
  },
  'too-many-cancelled': { text: 'The client cancels too many requests on this connection' },
  'files-too-many': { httpStatus: 503, retryAfter: 1, text: 'Too many files are being sent' },
  'bodies-too-many': {
    httpStatus: 503,
    retryAfter: 1,
    closeCode: 1013,
    level: 'warn',
    text: 'Too many bytes of request bodies are on their way',
  },
  'bodies-too-many-from-address': {
    httpStatus: 429,
    retryAfter: 1,
    closeCode: 1013,
    level: 'warn',
    text: 'Too many bytes of request bodies from your address are on their way',
  },
  'bodies-too-many-from-user': {
    httpStatus: 429,
    retryAfter: 1,
    closeCode: 1013,
    level: 'warn',
    text: 'Too many bytes of request bodies of this user are on their way',
  },
  'packets-too-many-from-address': {
    mqttReason: 0x97,
    closeCode: 1013,
    level: 'warn',
    text: 'Too many bytes of unfinished MQTT packets from your address (embedded.maxBufferedBytes)',
  },
  'admin-required': {
    httpStatus: 403,
    text: 'Only administrators may do this',
  },
  'topic-refused': { mqttReason: 0x87, httpStatus: 403, closeCode: 1008, text: 'This topic is not open to you' },
  'broker-away': {
    mqttReason: 0x88,
    httpStatus: 503,
    retryAfter: 5,
    closeCode: 1013,
    text: 'The MQTT broker is temporarily unavailable',
  },
  'publish-timeout': {
    httpStatus: 504,
    retryAfter: 5,
    closeCode: 1013,
    level: 'warn',
    text: 'The MQTT broker accepted the message, but did not deliver it in time; it may still arrive',
  },
  'publishing-too-fast': { mqttReason: 0x96, httpStatus: 429, retryAfter: 1, text: 'Too many messages per second' },
  'idempotency-mismatch': { httpStatus: 422, text: 'This Idempotency-Key was used for another request' },
  'idempotency-busy': {
    httpStatus: 409,
    retryAfter: 1,
    text: 'The first request with this Idempotency-Key is still in progress',
  },
  'response-timeout': { httpStatus: 504, text: 'No client answered the request in time' },
  'requests-too-many': {
    httpStatus: 503,
    retryAfter: 1,
    level: 'warn',
    text: 'Too many requests wait for their responses',
  },
  'requests-unsupported': {
    httpStatus: 501,
    text: 'The MQTT broker does not take requests: they need MQTT 5, or replyTopic',
  },
  'receipts-full': { httpStatus: 503, retryAfter: 10, level: 'warn', text: 'Too many delivery receipts are pending' },
  'filters-too-many': {
    mqttReason: 0x97,
    httpStatus: 503,
    retryAfter: 10,
    closeCode: 1013,
    level: 'warn',
    text: 'Your user or address has its share of the topic filters of all subscribers (push.maxSubscriptionsBytes)',
  },
  'too-many-receipts': { httpStatus: 429, retryAfter: 10, text: 'You have too many pending delivery receipts' },
  'journal-unavailable': {
    mqttReason: 0x83,
    httpStatus: 503,
    retryAfter: 5,
    closeCode: 1013,
    level: 'warn',
    text: 'The journal is temporarily unavailable',
  },
  'too-many-attempts': {
    mqttReason: 0x9f,
    httpStatus: 429,
    retryAfter: 10,
    closeCode: 1013,
    level: 'warn',
    text: 'Too many passwords to check from your address',
  },
  'too-many-tickets': { httpStatus: 503, retryAfter: 10, level: 'warn', text: 'Too many tickets wait to be used' },
  'broker-refused': {
    httpStatus: 502,
    retryAfter: 5,
    closeCode: 1014,
    level: 'error',
    text: 'The MQTT broker does not accept connections',
  },
  'broker-timeout': {
    httpStatus: 504,
    retryAfter: 5,
    closeCode: 1014,
    level: 'error',
    text: 'The MQTT broker did not answer in time',
  },

  // After the upgrade: a close frame, and a reason code of MQTT 5.
  'keep-alive-timeout': {
    mqttReason: 0x8d,
    closeCode: 1008,
    text: 'The client sent nothing for one and a half times its keep alive',
  },
  'protocol-version-refused': { mqttReason: 0x84, closeCode: 1002, text: 'This version of MQTT is not spoken here' },
  'client-id-invalid': { mqttReason: 0x85, closeCode: 1008, text: 'The client id is not valid' },
  'authentication-method-refused': {
    mqttReason: 0x8c,
    closeCode: 1008,
    text: 'Enhanced authentication is not supported here',
  },
  'receive-maximum-exceeded': {
    mqttReason: 0x93,
    closeCode: 1008,
    level: 'warn',
    text: 'More messages of QoS 1 and 2 are unacknowledged than the receive maximum allows',
  },
  'topic-alias-invalid': { mqttReason: 0x94, closeCode: 1002, level: 'warn', text: 'A topic alias is not valid' },
  'client-closed': { closeCode: 1000, text: 'The client closed the connection' },
  'client-disconnected': { closeCode: 1000, text: 'The client disconnected' },
  'client-gone': { closeCode: 1002, text: 'The client ended the connection without a close frame' },
  'client-reset': { closeCode: 1002, text: 'The connection to the client was lost' },
  'broker-closed': { closeCode: 1000, text: 'The MQTT broker closed the connection' },
  'broker-lost': { closeCode: 1014, level: 'warn', text: 'The connection to the MQTT broker was lost' },
  'protocol-error': { closeCode: 1002, level: 'warn', text: 'The frames break RFC 6455' },
  'invalid-utf8': { closeCode: 1007, level: 'warn', text: 'The close reason is not valid UTF-8' },
  'text-frame': { closeCode: 1003, level: 'warn', text: 'MQTT travels in binary frames; this was a text frame' },
  'binary-frame': { closeCode: 1003, level: 'warn', text: 'Only text is taken here; this was a binary frame' },
  'not-mqtt': {
    mqttReason: 0x82,
    closeCode: 1002,
    level: 'warn',
    text: 'The first packet must be a valid MQTT CONNECT',
  },
  'malformed-packet': { mqttReason: 0x81, closeCode: 1002, level: 'warn', text: 'An MQTT packet is not valid' },
  'identifiers-too-many': {
    mqttReason: 0x93,
    closeCode: 1013,
    level: 'warn',
    text: 'Too many messages of QoS 2 wait for their PUBREL',
  },
  'connect-too-large': { closeCode: 1009, level: 'warn', text: 'The MQTT CONNECT packet is too large' },
  'connect-timeout': {
    mqttReason: 0x82,
    closeCode: 1008,
    level: 'warn',
    text: 'No complete MQTT CONNECT arrived in time',
  },
  'packet-too-large': {
    mqttReason: 0x95,
    closeCode: 1009,
    level: 'warn',
    text: 'An MQTT packet is larger than this broker takes',
  },
  'message-too-large': { closeCode: 1009, level: 'warn', text: 'A message is larger than this endpoint takes' },
  'message-timeout': { closeCode: 1008, text: 'A message did not arrive in time' },
  'too-many-errors': { closeCode: 1008, level: 'warn', text: 'Too many invalid messages in a row' },
  'client-too-slow': { mqttReason: 0x97, closeCode: 1008, level: 'warn', text: 'The client reads too slowly' },
  'identity-expired': { mqttReason: 0x87, closeCode: 1008, text: 'Credentials expired' },
  'client-id-taken': {
    mqttReason: 0x85,
    closeCode: 1008,
    level: 'warn',
    text: 'This client id belongs to another user',
  },
  'client-id-reserved': {
    mqttReason: 0x85,
    closeCode: 1008,
    level: 'warn',
    text: 'This client id is the gateway’s own',
  },
  'session-taken-over': {
    mqttReason: 0x8e,
    closeCode: 1008,
    text: 'The same client id connected from another connection',
  },
  'disconnected-by-admin': {
    mqttReason: 0x98,
    closeCode: 1008,
    text: 'An administrator ended the connection',
  },
  'too-many-sessions': {
    mqttReason: 0x97,
    closeCode: 1008,
    level: 'warn',
    text: 'All sessions that you may have are in use',
  },
  'will-refused': {
    mqttReason: 0x87,
    closeCode: 1008,
    level: 'warn',
    text: 'The will has a topic that you may not publish to',
  },
  'topic-too-large': {
    mqttReason: 0x90,
    closeCode: 1008,
    level: 'warn',
    text: 'A topic has more levels, or is longer, than this broker takes',
  },
  complete: { closeCode: 1000, text: 'The client has received everything that it requested' },
  'ping-timeout': { closeCode: 1011, text: 'The client did not answer two pings' },
  'shutting-down': {
    mqttReason: 0x8b,
    httpStatus: 503,
    retryAfter: 5,
    closeCode: 1001,
    text: 'The gateway is shutting down',
  },
  'configuration-changed': {
    mqttReason: 0x98,
    closeCode: 1012,
    text: 'The configuration has changed: this endpoint, or its broker, is another one now',
  },
  'internal-error': {
    httpStatus: 500,
    closeCode: 1011,
    level: 'error',
    text: 'Something went wrong inside the gateway',
  },
} as const satisfies Record<string, ErrorRow>

/** The name of a reason: the metric label, and `reason` in the log. */
export type ErrorReason = keyof typeof table

/** All reasons. */
export const errorReasons = Object.keys(table) as readonly ErrorReason[]

/** The text of each reason. */
export const errorSentences: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(table).map(([reason, { text }]) => [reason, text]),
)

/** UTF-16 code units of a hint, which may hold a client's input. */
const maxHintLength = 256

/** Details of one error. */
export interface GatewayErrorOptions {
  /** Sent to the peer after the row's text. */
  readonly hint?: string
  /** Replaces `hint` in the log, and for clients that may read `/metrics`: names addresses and options of the gateway. */
  readonly detail?: string
  /** Replaces the row's reason code of MQTT 5. */
  readonly mqttReason?: number | undefined
  /** Replaces the row's, in seconds. */
  readonly retryAfter?: number
  /** Only for the log. */
  readonly cause?: unknown
}

/** The reason why a request or a connection is refused or ends. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError'
  readonly reason: ErrorReason
  /** The close code; 1011 for a reason before the upgrade. */
  readonly closeCode: number
  /** The HTTP status; 500 for a reason after the upgrade. */
  readonly httpStatus: number
  /** The reason code of MQTT 5, in CONNACK or DISCONNECT. */
  readonly mqttReason: number
  readonly level: ErrorLevel
  /** Seconds after which a retry makes sense. */
  readonly retryAfter: number | undefined
  /** The text for the peer: the row's text, and the hint. */
  readonly text: string
  readonly detail: string | undefined
  /** The text for the log, and for clients that may read `/metrics`: with `detail`. */
  readonly detailedText: string

  /** @param reason a row of the table */
  constructor(reason: ErrorReason, options: GatewayErrorOptions = {}) {
    const row: ErrorRow = table[reason]
    const text = options.hint === undefined ? row.text : `${row.text}: ${truncate(options.hint, maxHintLength)}`
    // Every connection ends with an error, whose stack trace would be expensive and useless. A cause keeps its stack.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(text, options.cause === undefined ? undefined : { cause: options.cause })
    Error.stackTraceLimit = stackTraceLimit
    this.reason = reason
    this.text = text
    this.detail = options.detail
    this.detailedText = options.detail === undefined ? text : `${row.text}: ${options.detail}`
    this.closeCode = row.closeCode ?? 1011
    this.httpStatus = row.httpStatus ?? 500
    this.mqttReason = options.mqttReason ?? row.mqttReason ?? 0x80
    this.level = row.level ?? 'info'
    this.retryAfter = options.retryAfter ?? row.retryAfter
  }

  /** Fields of its log line. Only an internal error has the stack of its cause in the log. */
  get logFields(): { reason: ErrorReason; err?: unknown } {
    const { reason, cause } = this
    if (cause === undefined || this.detail !== undefined) return { reason }
    return { reason, err: cause instanceof Error && reason !== 'internal-error' ? cause.message : cause }
  }

  /** Returns `error` if it is a `GatewayError`, else an `internal-error` with it as its cause. */
  static from(error: unknown): GatewayError {
    return error instanceof GatewayError ? error : new GatewayError('internal-error', { cause: error })
  }
}
