import { isUtf8 } from 'node:buffer'
import type { Writable } from 'node:stream'
import type { ConnectPacket } from 'aedes'
import { GatewayError } from '../../base/errors.js'
import { MalformedPacket, MqttFields } from '../../mqtt/fields.js'
import { hasForbiddenCharacter } from '../../topics/topic-syntax.js'
import type { Acknowledgement } from './packet-ids.js'

/** Fields of a packet of Aedes' parser that are used here. */
interface ParsedPacket {
  cmd: string
  readonly length: number
  readonly topic?: string
  readonly qos?: number
  readonly dup?: boolean
  readonly messageId?: number
  readonly subscriptions?: readonly { readonly topic: string }[]
  readonly unsubscriptions?: readonly string[]
}

/** Members of Aedes' parser (mqtt-packet) that are used here. */
export interface PacketParser {
  packet: ParsedPacket
  settings: object
  _pos: number
  readonly _list: {
    readonly length: number
    readUInt8(at: number): number
    slice(start: number, end: number): Buffer
    consume(bytes: number): void
  }
  _parseHeader(): boolean | undefined
  _parseString(): string | null
  _parseConnect(): unknown
  _newPacket(): boolean
  _emitError(error: Error): void
}

/**
 * Makes a connection's parser refuse packets that MQTT forbids, with `malformed-packet` [MQTT-4.8.0-1]. By itself, the parser replaces invalid
 * UTF-8, and accepts identifiers of 0, packets with trailing bytes and others that would reach other clients, which close their connections for
 * them.
 *
 * @param acknowledge notes an acknowledgement of the client; returns whether it is the expected one
 */
export function readStrictly(
  parser: PacketParser,
  acknowledge: (id: number, acknowledgement: Acknowledgement) => boolean,
): void {
  const { _parseHeader, _parseString, _newPacket, _emitError } = parser
  let connectFlags = 0
  parser._emitError = error =>
    _emitError.call(parser, new GatewayError('malformed-packet', { hint: error.message, cause: error }))
  parser._parseHeader = () => {
    const first = parser._list.readUInt8(0)
    if (first >> 4 !== connectType) return _parseHeader.call(parser)
    connectFlags = first & 0x0f
    parser.packet.cmd = 'connect'
    parser._list.consume(1)
    return true
  }
  parser._parseString = () => {
    const start = parser._pos + 2
    const text = _parseString.call(parser)
    const isForbidden = text !== null && problemOfText(text, () => parser._list.slice(start, parser._pos)) !== undefined
    return isForbidden ? null : text
  }
  parser._parseConnect = () => {
    try {
      const fields = new MqttFields(parser._list.slice(0, parser.packet.length))
      Object.assign(parser.packet, readConnect(fields, connectFlags))
      parser.settings = parser.packet
    } catch (error) {
      if (!(error instanceof MalformedPacket)) throw error
      parser._emitError(error)
    }
  }
  parser._newPacket = () => {
    const problem = problemOf(parser.packet, parser._pos) ?? problemOfAcknowledgement(parser.packet, acknowledge)
    if (problem === undefined) return _newPacket.call(parser)
    parser._emitError(new MalformedPacket(problem))
    return false
  }
}

const connectType = 1

/** @param bytes called where the text has U+FFFD, with which the parser replaces invalid UTF-8 */
function problemOfText(text: string, bytes: () => Buffer): string | undefined {
  if (text.includes('\ufffd') && !isUtf8(bytes())) return 'a text is not UTF-8' // [MQTT-1.5.3-1]
  return hasForbiddenCharacter(text) ? 'a text has a forbidden character' : undefined // [MQTT-1.5.3-2]
}

/** Why MQTT forbids a packet that the parser accepts; `undefined` for a valid one. */
function problemOf(packet: ParsedPacket, end: number): string | undefined {
  const { cmd, length, qos = 0, dup, topic = '', messageId = 0, subscriptions, unsubscriptions } = packet
  if (cmd === 'connect') return undefined
  if (end > length) return 'it is cut short'
  if (cmd === 'publish') {
    if (topic === '' || topic.includes('+') || topic.includes('#')) return 'its topic is no topic' // [MQTT-3.3.2-2], [MQTT-4.7.3-1]
    if (qos === 0) return dup ? 'it has DUP with QoS 0' : undefined // [MQTT-3.3.1-2]
    return messageId > 0 ? undefined : noIdentifier
  }
  if (cmd === 'pingreq' || cmd === 'disconnect') return length > 0 ? tooLong : undefined
  if (messageId <= 0) return noIdentifier
  if (cmd === 'subscribe' || cmd === 'unsubscribe') {
    const filters = subscriptions ?? unsubscriptions ?? []
    if (filters.length === 0) return 'it has no topic filter' // [MQTT-3.8.3-3], [MQTT-3.10.3-2]
    return filters.some(isEmpty) ? 'a topic filter is empty' : undefined // [MQTT-4.7.3-1]
  }
  return length > 2 ? tooLong : undefined
}

/** MQTT 3.1.1 §4.3. */
function problemOfAcknowledgement(
  { cmd, messageId = 0 }: ParsedPacket,
  acknowledge: (id: number, acknowledgement: Acknowledgement) => boolean,
): string | undefined {
  if (cmd !== 'puback' && cmd !== 'pubrec' && cmd !== 'pubcomp') return undefined
  return acknowledge(messageId, cmd) ? undefined : 'it is not the acknowledgement that the message waits for'
}

function isEmpty(filter: string | { readonly topic: string }): boolean {
  return (typeof filter === 'string' ? filter : filter.topic) === ''
}

// [MQTT-2.3.1-1]
const noIdentifier = 'it has no packet identifier'
const tooLong = 'it has more bytes than its fields'

/** A CONNECT of mqtt-packet. */
type Connect = Pick<ConnectPacket, 'clientId' | 'clean' | 'keepalive' | 'will' | 'username' | 'password'> & {
  readonly protocolId: string
  readonly protocolVersion: number
  readonly bridgeMode?: true
}

/** Protocol levels by protocol name; MQTT 3.1 is MQIsdp. */
const levels: ReadonlyMap<string, number> = new Map([
  ['MQTT', 4],
  ['MQIsdp', 3],
])

/** Bit in the protocol level of a bridge (mosquitto's `try_private`). */
const bridgeBit = 0x80

/**
 * Reads a CONNECT (MQTT 3.1.1 §3.1), but not beyond another level, which Aedes refuses with return code 1 [MQTT-3.1.2-2].
 *
 * @param headerFlags the lower four bits of its first byte, which MQTT 3.1.1 forbids, like trailing bytes
 * @throws {MalformedPacket}
 */
function readConnect(fields: MqttFields, headerFlags: number): Connect {
  const protocolId = text(fields)
  const level = levels.get(protocolId)
  if (level === undefined) throw new MalformedPacket('it is of another protocol') // [MQTT-3.1.2-1]
  const byte = fields.byte()
  if ((byte & ~bridgeBit) !== level) return { protocolId, protocolVersion: 0, clientId: '', clean: true, keepalive: 0 }
  const isNew = level > 3
  const flags = fields.byte()
  if (isNew && headerFlags !== 0) throw new MalformedPacket('it has reserved flags') // [MQTT-2.2.2-2]
  checkFlags(flags, isNew)
  const keepalive = fields.integer()
  const clientId = text(fields)
  const will = (flags & 0x04) === 0 ? undefined : readWill(fields, flags)
  const username = (flags & 0x80) === 0 ? undefined : text(fields)
  const password = (flags & 0x40) === 0 ? undefined : fields.binary()
  if (isNew && fields.left > 0) throw new MalformedPacket(tooLong)
  return {
    protocolId,
    protocolVersion: level,
    clientId,
    clean: (flags & 0x02) !== 0,
    keepalive,
    ...((byte & bridgeBit) === 0 ? {} : { bridgeMode: true }),
    ...(will && { will }),
    ...(username === undefined ? {} : { username }),
    ...(password && { password }),
  }
}

/** MQTT 3.1.1 §3.1.2.3. */
function checkFlags(flags: number, isNew: boolean): void {
  const hasWill = (flags & 0x04) !== 0
  if (isNew && (flags & 0x01) !== 0) throw new MalformedPacket('its reserved flag is set') // [MQTT-3.1.2-3]
  if (!hasWill && (flags & 0x38) !== 0) throw new MalformedPacket('it has will flags without a will') // [MQTT-3.1.2-13], [MQTT-3.1.2-15]
  if ((flags & 0x18) === 0x18) throw new MalformedPacket('its will has QoS 3') // [MQTT-3.1.2-14]
  const isPasswordAlone = (flags & 0xc0) === 0x40
  if (isNew && isPasswordAlone) throw new MalformedPacket('it has a password and no user name') // [MQTT-3.1.2-22]
}

function readWill(fields: MqttFields, flags: number): NonNullable<ConnectPacket['will']> {
  const topic = text(fields)
  if (topic === '' || /[+#]/.test(topic)) throw new MalformedPacket("its will's topic is no topic")
  const level = (flags & 0x18) >> 3
  const qos = level === 2 ? 2 : level === 1 ? 1 : 0
  return { topic, payload: fields.binary(), qos, retain: (flags & 0x20) !== 0 }
}

function text(fields: MqttFields): string {
  const bytes = fields.binary()
  const read = bytes.toString()
  const problem = problemOfText(read, () => bytes)
  if (problem !== undefined) throw new MalformedPacket(problem)
  return read
}

/** Position of the session-present flag among the bytes of CONNACK (MQTT 3.1.1 §3.2.2.2). */
const flagPosition = 2

/**
 * Clears the session-present flag in CONNACK: MQTT 3.1 reserves its byte, and Aedes sets the flag for every version.
 *
 * @param stream nothing has been written to it yet
 */
export function clearSessionPresent(stream: Writable): void {
  const write = stream.write.bind(stream)
  let position = 0
  stream.write = (chunk: Buffer): boolean => {
    const at = flagPosition - position
    position += chunk.length
    if (at >= chunk.length) return write(chunk)
    Reflect.deleteProperty(stream, 'write')
    // Aedes' encoder shares its buffers between connections.
    const cleared = Buffer.from(chunk)
    cleared[at] = 0
    return write(cleared)
  }
}
