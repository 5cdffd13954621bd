import { isUtf8 } from 'node:buffer'
import type { ConnectPacket } from 'aedes'
import { GatewayError } from '../../base/errors.js'
import { MalformedPacket, MqttFields } from '../../mqtt/fields.js'
import {
  maxPropertyBytes,
  type Properties,
  type PropertySet,
  readMessageProperties,
  readProperties,
} from '../../mqtt/properties.js'
import { reasonCodes } from '../../mqtt/reason-codes.js'
import { hasForbiddenCharacter } from '../../topics/topic-syntax.js'
import type { Acknowledgement } from './packet-ids.js'

/** Properties as the parser returns them; those of a PUBLISH or a will for its receivers are in `encoded`, too. */
export interface ParsedProperties extends Properties {
  readonly encoded?: Buffer | undefined
}

/** One topic filter of a SUBSCRIBE. */
export interface ParsedSubscription {
  readonly topic: string
  readonly qos: 0 | 1 | 2
  /** No Local, Retain As Published and Retain Handling, of MQTT 5 and of bridges. */
  readonly nl?: boolean
  readonly rap?: boolean
  readonly rh?: number
}

/** Fields of a packet of Aedes' parser that are used here. */
export interface ParsedPacket {
  cmd: string
  readonly length: number
  readonly topic?: string
  readonly payload?: Buffer
  readonly qos?: 0 | 1 | 2
  readonly dup?: boolean
  readonly retain?: boolean
  readonly messageId?: number
  readonly reasonCode?: number
  readonly properties?: ParsedProperties
  readonly subscriptions?: readonly ParsedSubscription[]
  readonly unsubscriptions?: readonly string[]
}

/** Members of Aedes' parser (mqtt-packet) that are used here. */
export interface PacketParser {
  packet: ParsedPacket
  settings: { readonly protocolVersion?: number; readonly bridgeMode?: boolean }
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
  _parseSubscribe(): unknown
  _parseUnsubscribe(): unknown
  _parseDisconnect(): unknown
  _parseAuth(): unknown
  _parseProperties(): object
  _newPacket(): boolean
  _emitError(error: Error): void
  on(event: 'packet', listener: (packet: ParsedPacket) => void): unknown
  removeListener(event: 'packet', listener: (packet: ParsedPacket) => void): unknown
  listeners(event: 'packet'): unknown[]
}

export interface StrictPacketsOptions {
  /** Notes an acknowledgement of the client; returns whether it is the expected one. */
  readonly acknowledge: (id: number, acknowledgement: Acknowledgement) => boolean
  /** Called before the connection is closed for a malformed packet. @param isConnect whether it is a CONNECT of MQTT 5 */
  readonly onMalformed: (error: GatewayError, isConnect: boolean) => void
}

/**
 * Makes a connection's parser refuse packets that MQTT forbids, with `malformed-packet` [MQTT-4.8.0-1]. By itself, the parser replaces invalid
 * UTF-8, and accepts identifiers of 0, packets with trailing bytes and others that would reach other clients, which close their connections for
 * them.
 */
export function readStrictly(parser: PacketParser, { acknowledge, onMalformed }: StrictPacketsOptions): void {
  const { _parseHeader, _parseString, _parseDisconnect, _parseAuth, _newPacket, _emitError } = parser
  let connectFlags = 0
  const isVersion5 = (): boolean => parser.settings.protocolVersion === 5
  parser._emitError = error => {
    const mqttReason = error instanceof MalformedPacket ? error.reasonCode : undefined
    const refusal = new GatewayError('malformed-packet', { hint: error.message, cause: error, mqttReason })
    onMalformed(refusal, parser.packet.cmd === 'connect')
    _emitError.call(parser, refusal)
  }
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
    if (text === null || hasForbiddenCharacter(text)) return null // [MQTT-1.5.3-2]
    // The parser replaces invalid UTF-8 [MQTT-1.5.3-1].
    return text.includes('\ufffd') && !isUtf8(parser._list.slice(start, parser._pos)) ? null : text
  }
  /** Runs `parse`; a malformed packet ends the connection. */
  const strictly = (parse: () => void): void => {
    try {
      parse()
    } catch (error) {
      if (!(error instanceof MalformedPacket)) throw error
      parser._emitError(error)
    }
  }
  // The parser would read behind a packet without fields.
  const parseReason = (codes: ReadonlySet<number>): void => {
    strictly(() => {
      const fields = new MqttFields(parser._list.slice(0, parser.packet.length))
      Object.assign(parser.packet, readReason(fields, placeOf(parser.packet.cmd), codes))
      parser._pos = fields.position
    })
  }
  parser._parseDisconnect = () => (isVersion5() ? parseReason(disconnectCodes) : _parseDisconnect.call(parser))
  parser._parseAuth = () => (isVersion5() ? parseReason(authCodes) : _parseAuth.call(parser))
  parser._parseConnect = () => {
    strictly(() => {
      const fields = new MqttFields(parser._list.slice(0, parser.packet.length))
      const connect = readConnect(fields, connectFlags, () => {
        parser.settings = { protocolVersion: 5 }
      })
      Object.assign(parser.packet, connect)
      parser.settings = connect
    })
  }
  // The parser would make a Buffer for each field.
  const parseFilters =
    (read: (fields: MqttFields, settings: PacketParser['settings']) => Partial<ParsedPacket>) => () => {
      strictly(() => {
        const fields = new MqttFields(parser._list.slice(0, parser.packet.length))
        Object.assign(parser.packet, read(fields, parser.settings))
        parser._pos = fields.position
      })
    }
  parser._parseSubscribe = parseFilters(readSubscribe)
  parser._parseUnsubscribe = parseFilters(readUnsubscribe)
  parser._parseProperties = () => {
    const { cmd, length } = parser.packet
    // Not the payload, which a slice over several reads would copy.
    const end = Math.min(length, parser._pos + 5 + maxPropertyBytes)
    let properties: object = {}
    strictly(() => {
      const fields = new MqttFields(parser._list.slice(parser._pos, Math.max(end, parser._pos)))
      properties = (cmd === 'publish' ? publishProperties(fields) : readProperties(fields, placeOf(cmd))) ?? {}
      parser._pos += fields.position
    })
    return properties
  }
  parser._newPacket = () => {
    const { packet } = parser
    const problem = problemOf(packet, parser._pos, isVersion5()) ?? problemOfAcknowledgement(packet, acknowledge)
    if (problem === undefined) return _newPacket.call(parser)
    parser._emitError(new MalformedPacket(problem, isVersion5() ? reasonOf(problem) : undefined))
    return false
  }
}

function publishProperties(fields: MqttFields): ParsedProperties | undefined {
  const found = readMessageProperties(fields, 'publish')
  return found && { ...found.own, encoded: found.encoded }
}

/** Reads the fields of a SUBSCRIBE (§3.8). */
function readSubscribe(fields: MqttFields, { protocolVersion, bridgeMode }: PacketParser['settings']) {
  const isVersion5 = protocolVersion === 5
  const messageId = fields.integer()
  const properties = isVersion5 ? readProperties(fields, 'subscribe') : undefined
  const subscriptions: ParsedSubscription[] = []
  while (fields.left > 0) {
    const topic = fields.text()
    const options = fields.byte()
    const [qos, rh] = [options & 0x03, options >> 4]
    if ((qos !== 0 && qos !== 1 && qos !== 2) || rh > 2 || (!isVersion5 && options > 2)) {
      throw new MalformedPacket('a subscription has invalid options') // [MQTT-3.8.3-5]
    }
    if (isVersion5) subscriptions.push({ topic, qos, nl: (options & 0x04) !== 0, rap: (options & 0x08) !== 0, rh })
    else subscriptions.push(bridgeMode ? { topic, qos, nl: true, rap: true, rh: 0 } : { topic, qos })
  }
  return { messageId, subscriptions, ...(properties && { properties }) }
}

/** Reads the fields of an UNSUBSCRIBE (§3.10). */
function readUnsubscribe(fields: MqttFields, { protocolVersion }: PacketParser['settings']) {
  const messageId = fields.integer()
  const properties = protocolVersion === 5 ? readProperties(fields, 'unsubscribe') : undefined
  const unsubscriptions: string[] = []
  while (fields.left > 0) unsubscriptions.push(fields.text())
  return { messageId, unsubscriptions, ...(properties && { properties }) }
}

/** Reason codes of a client's DISCONNECT and AUTH (§3.14.2.1, §3.15.2.1). */
const disconnectCodes: ReadonlySet<number> = new Set([
  ...[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99],
])
const authCodes: ReadonlySet<number> = new Set([0x18, 0x19])

function readReason(fields: MqttFields, place: PropertySet, codes: ReadonlySet<number>): Partial<ParsedPacket> {
  if (fields.left === 0) return { reasonCode: 0 }
  const reasonCode = fields.byte()
  if (!codes.has(reasonCode)) throw new MalformedPacket('it has another reason code', reasonCodes.protocolError)
  const properties = fields.left === 0 ? undefined : readProperties(fields, place)
  return { reasonCode, ...(properties && { properties }) }
}

const places: ReadonlyMap<string, PropertySet> = new Map([
  ['subscribe', 'subscribe'],
  ['unsubscribe', 'unsubscribe'],
  ['disconnect', 'disconnect'],
  ['auth', 'auth'],
])

function placeOf(packet: string): PropertySet {
  return places.get(packet) ?? 'acknowledgement'
}

const connectType = 1

/** Why MQTT forbids a packet that the parser accepts; `undefined` for a valid one. */
function problemOf(packet: ParsedPacket, end: number, isVersion5: boolean): string | undefined {
  const { cmd, length, qos = 0, dup, topic = '', messageId = 0, subscriptions, unsubscriptions, properties } = packet
  if (cmd === 'connect') return undefined
  if (end > length) return 'it is cut short'
  if (cmd === 'publish') {
    const isAliased = topic === '' && properties?.topicAlias !== undefined
    if (!isAliased && (topic === '' || topic.includes('+') || topic.includes('#'))) return noTopic // [MQTT-3.3.2-2], [MQTT-4.7.3-1]
    if (qos === 0) return dup ? 'it has DUP with QoS 0' : undefined // [MQTT-3.3.1-2]
    return messageId > 0 ? undefined : noIdentifier
  }
  if (cmd === 'pingreq') return length > 0 ? tooLong : undefined
  if (cmd === 'disconnect' || cmd === 'auth') return length > (isVersion5 ? end : 0) ? tooLong : undefined
  if (messageId <= 0) return noIdentifier
  if (cmd === 'subscribe' || cmd === 'unsubscribe') {
    const filters = subscriptions ?? unsubscriptions ?? []
    if (filters.length === 0) return noFilter // [MQTT-3.8.3-3], [MQTT-3.10.3-2]
    return filters.some(isEmpty) ? 'a topic filter is empty' : undefined // [MQTT-4.7.3-1]
  }
  return length > (isVersion5 ? end : 2) ? tooLong : undefined
}

const noTopic = 'its topic is no topic'
const noFilter = 'it has no topic filter'

function reasonOf(problem: string): number {
  // Protocol errors: §3.3.2.1, §3.8.3, §3.10.3.
  return problem === noTopic || problem === noFilter || problem === unexpected
    ? reasonCodes.protocolError
    : reasonCodes.malformedPacket
}

const unexpected = 'it is not the acknowledgement that the message waits for'

/** MQTT 3.1.1 §4.3. */
function problemOfAcknowledgement(
  { cmd, messageId = 0 }: ParsedPacket,
  acknowledge: (id: number, acknowledgement: Acknowledgement) => boolean,
): string | undefined {
  if (cmd !== 'puback' && cmd !== 'pubrec' && cmd !== 'pubcomp') return undefined
  return acknowledge(messageId, cmd) ? undefined : unexpected
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
  readonly properties?: Properties
  readonly bridgeMode?: true
}

/** Protocol levels by protocol name; MQTT 3.1 is MQIsdp. */
const levels: ReadonlyMap<string, readonly number[]> = new Map([
  ['MQTT', [4, 5]],
  ['MQIsdp', [3]],
])

/** Bit in the protocol level of a bridge (mosquitto's `try_private`). */
const bridgeBit = 0x80

/**
 * Reads a CONNECT (MQTT 3.1.1 and 5, §3.1), but not beyond another level, which Aedes refuses with return code 1 [MQTT-3.1.2-2].
 *
 * @param headerFlags the lower four bits of its first byte, which MQTT 3.1.1 forbids, like trailing bytes
 * @param onVersion5 called when it turns out to be of MQTT 5
 * @throws {MalformedPacket}
 */
function readConnect(fields: MqttFields, headerFlags: number, onVersion5: () => void): Connect {
  const protocolId = fields.text()
  const known = levels.get(protocolId)
  if (known === undefined) throw new MalformedPacket('it is of another protocol') // [MQTT-3.1.2-1]
  const byte = fields.byte()
  // MQTT 5 has no bridges of their own.
  const level = byte === 5 ? 5 : byte & ~bridgeBit
  if (!known.includes(level) || (level === 5 && byte !== 5)) {
    return { protocolId, protocolVersion: 0, clientId: '', clean: true, keepalive: 0 }
  }
  const [isNew, isVersion5] = [level > 3, level === 5]
  if (isVersion5) onVersion5()
  const flags = fields.byte()
  if (isNew && headerFlags !== 0) throw new MalformedPacket('it has reserved flags') // [MQTT-2.2.2-2]
  checkFlags(flags, level)
  const keepalive = fields.integer()
  const properties = isVersion5 ? readProperties(fields, 'connect') : undefined
  const clientId = fields.text()
  const will = (flags & 0x04) === 0 ? undefined : readWill(fields, flags, isVersion5)
  const username = (flags & 0x80) === 0 ? undefined : fields.text()
  const password = (flags & 0x40) === 0 ? undefined : fields.binary()
  if (isNew && fields.left > 0) throw new MalformedPacket(tooLong)
  return {
    protocolId,
    protocolVersion: level,
    clientId,
    clean: (flags & 0x02) !== 0,
    keepalive,
    ...(properties && { properties }),
    ...((byte & bridgeBit) === 0 ? {} : { bridgeMode: true }),
    ...(will && { will }),
    ...(username === undefined ? {} : { username }),
    ...(password && { password }),
  }
}

/** MQTT 3.1.1 §3.1.2.3. */
function checkFlags(flags: number, level: number): void {
  const isNew = level > 3
  const hasWill = (flags & 0x04) !== 0
  if (isNew && (flags & 0x01) !== 0) throw new MalformedPacket('its reserved flag is set') // [MQTT-3.1.2-3]
  if (!hasWill && (flags & 0x38) !== 0) throw new MalformedPacket('it has will flags without a will') // [MQTT-3.1.2-13], [MQTT-3.1.2-15]
  if ((flags & 0x18) === 0x18) throw new MalformedPacket('its will has QoS 3') // [MQTT-3.1.2-14]
  const isPasswordAlone = (flags & 0xc0) === 0x40
  if (level === 4 && isPasswordAlone) throw new MalformedPacket('it has a password and no user name') // [MQTT-3.1.2-22]
}

function readWill(fields: MqttFields, flags: number, isVersion5: boolean): NonNullable<ConnectPacket['will']> {
  const found = isVersion5 ? readMessageProperties(fields, 'will') : undefined
  const topic = fields.text()
  if (topic === '' || /[+#]/.test(topic)) throw new MalformedPacket("its will's topic is no topic")
  const level = (flags & 0x18) >> 3
  const qos = level === 2 ? 2 : level === 1 ? 1 : 0
  const payload = fields.binary()
  if (found?.own.payloadFormatIndicator && !isUtf8(payload)) {
    throw new MalformedPacket("its will's payload is not UTF-8", reasonCodes.payloadFormatInvalid)
  }
  const { willDelayInterval, messageExpiryInterval } = found?.own ?? {}
  const properties = found && {
    ...(willDelayInterval !== undefined && { willDelayInterval }),
    ...(messageExpiryInterval !== undefined && { messageExpiryInterval }),
    encoded: found.encoded,
  }
  return { topic, payload, qos, retain: (flags & 0x20) !== 0, ...(properties && { properties }) }
}
