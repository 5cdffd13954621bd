import { Ending } from '../../endings.js'
import { packetTooLarge } from './packet-too-large.js'

/** The broker did not let the connection in. */
export class ConnectionRefusal extends Error {
  override readonly name = 'ConnectionRefusal'
  /** Whether it may be that the broker does not speak the dialect. */
  readonly mayBeDialect: boolean

  constructor(text: string, mayBeDialect: boolean, cause?: unknown) {
    super(text, cause === undefined ? undefined : { cause })
    this.mayBeDialect = mayBeDialect
  }
}

/** Another connection has taken the place of this one: it has the same client id (MQTT 5 §4.13, reason code 0x8E). */
export class TakenOver extends Error {
  override readonly name = 'TakenOver'
}

/** MQTT 3.1.1, table 3.1, and what MQTT 5 has in its place (§3.2.2.2). */
const refusals: Readonly<Record<number, string>> = {
  1: 'it does not speak this version of MQTT',
  2: 'it does not accept the client id',
  3: 'it says that its service is unavailable',
  4: 'it does not accept the user name or password',
  5: 'it does not authorize the session',
  132: 'it does not speak this version of MQTT',
  133: 'it does not accept the client id',
  134: 'it does not accept the user name or password',
  135: 'it does not authorize the session',
  136: 'it says that its service is unavailable',
  137: 'it is busy',
  138: 'it has banned the session',
}

/** What a code of CONNACK other than 0 means. */
export function refusalOf(code: number): ConnectionRefusal {
  return new ConnectionRefusal(refusals[code] ?? `return code ${code}`, code === 1 || code === 0x84)
}

/** What the code of a DISCONNECT means. */
export function disconnection(code: number | undefined): Error {
  if (code === 0x8e) return new TakenOver('another session has the same client id')
  return new Error(`the broker ended the session (reason code ${code ?? 0})`)
}

/** What the code of an answer to a packet means, where it is an error (MQTT 5 §2.4). */
export function answerError(code: number): Error | undefined {
  if (code < 0x80) return undefined
  // mosquitto's message_size_limit, which it does not tell in CONNACK.
  if (code === packetTooLarge) {
    return new Ending('body-too-large', { hint: 'the broker does not take a message of this size' })
  }
  // Not authorized; topic name invalid.
  if (code === 0x87 || code === 0x90) return new Ending('topic-refused', { hint: 'the broker does not accept it' })
  return new Ending('broker-away', { hint: `it answered with reason code ${code}` })
}
