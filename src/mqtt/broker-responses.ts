import constants from 'mqtt-packet/constants.js'
import { GatewayError } from '../base/errors.js'

/** MQTT 5 §2.4. */
const packetTooLarge = 0x95

// mosquitto sends it in PUBACK and PUBREC for a message over its message_size_limit, although it is not allowed there (table 2-6).
// mqtt-packet would reject the packet as malformed, which would close the shared connection.
constants.MQTT5_PUBACK_PUBREC_CODES[packetTooLarge] = 'Packet too large'

/** Bad user name or password, not authorized (MQTT 3.1.1 table 3.1, MQTT 5 §3.2.2.2). */
const authenticationCodes: ReadonlySet<number> = new Set([4, 5, 134, 135])

/** The broker refused the connection. */
export class ConnectionRefusal extends Error {
  override readonly name = 'ConnectionRefusal'
  /** Whether the cause may be that the broker does not support the protocol profile. */
  readonly mayBeProfile: boolean
  /** The code of CONNACK, if there was one. */
  readonly code: number | undefined

  constructor(text: string, mayBeProfile: boolean, { cause, code }: { cause?: unknown; code?: number } = {}) {
    super(text, cause === undefined ? undefined : { cause })
    this.mayBeProfile = mayBeProfile
    this.code = code
  }

  /** Whether the broker refused the user name, the password or the user. */
  get isOfLogin(): boolean {
    return this.code !== undefined && authenticationCodes.has(this.code)
  }
}

/** Another connection with the same client id has taken over the session (MQTT 5 §4.13, reason code 0x8E). */
export class TakenOver extends Error {
  override readonly name = 'TakenOver'
}

const [wrongVersion, wrongClientId, unavailable, wrongPassword, unauthorized] = [
  'it does not speak this version of MQTT',
  'it does not accept the client id',
  'it says that its service is unavailable',
  'it does not accept the user name or password',
  'it does not authorize the session',
]

/** Return codes of MQTT 3.1.1 (table 3.1), and reason codes of MQTT 5 in CONNACK and DISCONNECT (§3.2.2.2, §3.14.2.1). */
const refusals: Readonly<Record<number, string>> = {
  1: wrongVersion,
  2: wrongClientId,
  3: unavailable,
  4: wrongPassword,
  5: unauthorized,
  128: 'it gives no reason',
  129: 'it could not read the packet',
  130: 'it says that the packet breaks the protocol',
  131: 'it does not take the packet, though it is right',
  132: wrongVersion,
  133: wrongClientId,
  134: wrongPassword,
  135: unauthorized,
  136: unavailable,
  137: 'it is busy',
  138: 'it has banned the session',
  139: 'it is shutting down',
  140: 'it asks for another way to log in (an authentication method of MQTT 5)',
  141: 'it has got no packet within the keep-alive time',
  142: 'another session has the same client id',
  144: 'it does not accept a topic',
  147: 'it has got more messages at once than it takes',
  149: 'it does not take packets of this size',
  150: 'it does not take so many messages in that time',
  151: 'a quota of it is used up',
  152: 'an administrator has ended the session',
  153: 'it does not accept the format of a payload',
  154: 'it takes no retained messages',
  155: 'it does not take this QoS',
  156: 'it names another server',
  157: 'it has moved to another server',
  159: 'it does not take so many connections in that time',
  160: 'the session has lasted as long as it may',
}

/** @param reasonString of the broker (MQTT 5 §3.2.2.3.9) */
function describe(code: number, reasonString: string | undefined): string {
  const text = refusals[code] ?? 'the specification does not name the reason'
  return `${text}${reasonString === undefined ? '' : `: ${reasonString}`} (code ${code})`
}

/** Returns the error of a CONNACK code other than 0. */
export function refusalOf(code: number, reasonString?: string): ConnectionRefusal {
  return new ConnectionRefusal(describe(code, reasonString), code === 1 || code === 0x84, { code })
}

/** Returns the error of a DISCONNECT from the broker. */
export function disconnection(code = 0, reasonString?: string): Error {
  if (code === 0x8e) return new TakenOver('another session has the same client id')
  if (code < 0x80) return new Error(`the broker ended the session (reason code ${code})`)
  return new Error(`the broker ended the session: ${describe(code, reasonString)}`)
}

/** Returns the error of a reason code in an acknowledgement; `undefined` for success (MQTT 5 §2.4). */
export function reasonCodeError(code: number): Error | undefined {
  if (code < 0x80) return undefined
  // mosquitto's message_size_limit, which is not in CONNACK.
  if (code === packetTooLarge) {
    return new GatewayError('body-too-large', { hint: 'the broker does not take a message of this size' })
  }
  // Not authorized; topic name invalid.
  if (code === 0x87 || code === 0x90)
    return new GatewayError('topic-refused', { hint: 'the broker does not accept it' })
  return new GatewayError('broker-away', { hint: `it responded with reason code ${code}` })
}
