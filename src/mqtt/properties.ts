import { isUtf8 } from 'node:buffer'
import { hasForbiddenCharacter } from '../topics/topic-syntax.js'
import { MalformedPacket, MqttFields } from './fields.js'
import { reasonCodes } from './reason-codes.js'

/** A name and its value; names may repeat, and the order counts [MQTT-3.3.2-18]. */
export type UserProperty = readonly [name: string, value: string]

/** Properties of MQTT 5 (§2.2.2.2) by name. */
export interface Properties {
  payloadFormatIndicator?: boolean
  messageExpiryInterval?: number
  contentType?: string
  responseTopic?: string
  correlationData?: Buffer
  /** In SUBSCRIBE one, in PUBLISH one for each matching subscription. */
  subscriptionIdentifiers?: readonly number[]
  sessionExpiryInterval?: number
  assignedClientIdentifier?: string
  serverKeepAlive?: number
  authenticationMethod?: string
  authenticationData?: Buffer
  requestProblemInformation?: boolean
  willDelayInterval?: number
  requestResponseInformation?: boolean
  responseInformation?: string
  serverReference?: string
  reasonString?: string
  receiveMaximum?: number
  topicAliasMaximum?: number
  topicAlias?: number
  maximumQoS?: number
  retainAvailable?: boolean
  userProperties?: readonly UserProperty[]
  maximumPacketSize?: number
  wildcardSubscriptionAvailable?: boolean
  subscriptionIdentifiersAvailable?: boolean
  sharedSubscriptionAvailable?: boolean
}

/** The properties of a message for its receivers. */
export type MessageProperties = Pick<
  Properties,
  'payloadFormatIndicator' | 'contentType' | 'responseTopic' | 'correlationData' | 'userProperties'
>

type Name = keyof Properties
type Type = 'flag' | 'byte' | 'uint16' | 'uint32' | 'variable' | 'text' | 'binary' | 'pair'

interface Row {
  readonly identifier: number
  readonly name: Name
  readonly type: Type
  /** Whether 0 is a protocol error. */
  readonly isPositive?: boolean
}

const rows: readonly Row[] = [
  { identifier: 0x01, name: 'payloadFormatIndicator', type: 'flag' },
  { identifier: 0x02, name: 'messageExpiryInterval', type: 'uint32' },
  { identifier: 0x03, name: 'contentType', type: 'text' },
  { identifier: 0x08, name: 'responseTopic', type: 'text' },
  { identifier: 0x09, name: 'correlationData', type: 'binary' },
  { identifier: 0x0b, name: 'subscriptionIdentifiers', type: 'variable', isPositive: true },
  { identifier: 0x11, name: 'sessionExpiryInterval', type: 'uint32' },
  { identifier: 0x12, name: 'assignedClientIdentifier', type: 'text' },
  { identifier: 0x13, name: 'serverKeepAlive', type: 'uint16' },
  { identifier: 0x15, name: 'authenticationMethod', type: 'text' },
  { identifier: 0x16, name: 'authenticationData', type: 'binary' },
  { identifier: 0x17, name: 'requestProblemInformation', type: 'flag' },
  { identifier: 0x18, name: 'willDelayInterval', type: 'uint32' },
  { identifier: 0x19, name: 'requestResponseInformation', type: 'flag' },
  { identifier: 0x1a, name: 'responseInformation', type: 'text' },
  { identifier: 0x1c, name: 'serverReference', type: 'text' },
  { identifier: 0x1f, name: 'reasonString', type: 'text' },
  { identifier: 0x21, name: 'receiveMaximum', type: 'uint16', isPositive: true },
  { identifier: 0x22, name: 'topicAliasMaximum', type: 'uint16' },
  { identifier: 0x23, name: 'topicAlias', type: 'uint16' },
  { identifier: 0x24, name: 'maximumQoS', type: 'byte' },
  { identifier: 0x25, name: 'retainAvailable', type: 'flag' },
  { identifier: 0x26, name: 'userProperties', type: 'pair' },
  { identifier: 0x27, name: 'maximumPacketSize', type: 'uint32', isPositive: true },
  { identifier: 0x28, name: 'wildcardSubscriptionAvailable', type: 'flag' },
  { identifier: 0x29, name: 'subscriptionIdentifiersAvailable', type: 'flag' },
  { identifier: 0x2a, name: 'sharedSubscriptionAvailable', type: 'flag' },
]

const byIdentifier: ReadonlyMap<number, Row> = new Map(rows.map(row => [row.identifier, row]))
const byName: ReadonlyMap<Name, Row> = new Map(rows.map(row => [row.name, row]))

const messageNames = [
  'payloadFormatIndicator',
  'contentType',
  'responseTopic',
  'correlationData',
  'userProperties',
] as const satisfies readonly Name[]

/** The properties of each packet that the gateway reads (table 2-4). */
const allowed = {
  connect: names(
    'sessionExpiryInterval',
    'receiveMaximum',
    'maximumPacketSize',
    'topicAliasMaximum',
    'requestResponseInformation',
    'requestProblemInformation',
    'userProperties',
    'authenticationMethod',
    'authenticationData',
  ),
  connack: names(
    'sessionExpiryInterval',
    'receiveMaximum',
    'maximumQoS',
    'retainAvailable',
    'maximumPacketSize',
    'assignedClientIdentifier',
    'topicAliasMaximum',
    'reasonString',
    'userProperties',
    'wildcardSubscriptionAvailable',
    'subscriptionIdentifiersAvailable',
    'sharedSubscriptionAvailable',
    'serverKeepAlive',
    'responseInformation',
    'serverReference',
    'authenticationMethod',
    'authenticationData',
  ),
  will: names('willDelayInterval', 'messageExpiryInterval', ...messageNames),
  // A client sends no subscription identifier [MQTT-3.3.4-6].
  publish: names('messageExpiryInterval', 'topicAlias', ...messageNames),
  message: names(...messageNames),
  acknowledgement: names('reasonString', 'userProperties'),
  subscribe: names('subscriptionIdentifiers', 'userProperties'),
  unsubscribe: names('userProperties'),
  disconnect: names('sessionExpiryInterval', 'reasonString', 'userProperties', 'serverReference'),
  auth: names('authenticationMethod', 'authenticationData', 'reasonString', 'userProperties'),
} as const

/** A set of properties: of a packet, a will, or a message for its receivers. */
export type PropertySet = keyof typeof allowed

function names(...all: Name[]): ReadonlySet<Name> {
  return new Set(all)
}

/** Bytes of the properties of one packet: reading more would hold up the others. */
export const maxPropertyBytes = 64 * 1024

/** Largest subscription identifier (§3.8.2.1.2). */
const maxVariable = 268_435_455

/**
 * Reads the properties of a packet with their length; `undefined` where there are none. User properties are checked, and left out.
 *
 * @throws {MalformedPacket} for properties that MQTT 5 does not allow there (§2.2.2), with its reason code
 */
export function readProperties(fields: MqttFields, place: PropertySet): Properties | undefined {
  const section = readSection(fields)
  return section && parseProperties(section, place)
}

function readSection(fields: MqttFields): Buffer | undefined {
  const length = fields.variableByteInteger()
  if (length > maxPropertyBytes) {
    throw new MalformedPacket(`its properties have more than ${maxPropertyBytes} bytes`, reasonCodes.packetTooLarge)
  }
  return length === 0 ? undefined : fields.part(length)
}

/**
 * Reads the properties of a PUBLISH or a will as `readProperties`; those for the receivers also as bytes, unchanged.
 *
 * @throws {MalformedPacket} as `readProperties`
 */
export function readMessageProperties(
  fields: MqttFields,
  place: 'publish' | 'will',
): { readonly own: Properties; readonly encoded: Buffer | undefined } | undefined {
  const section = readSection(fields)
  if (!section) return undefined
  const kept: Buffer[] = []
  let from = 0
  const own = parseProperties(section, place, (start, end) => {
    if (start > from) kept.push(section.subarray(from, start))
    from = end
  })
  if (from < section.length) kept.push(section.subarray(from))
  // Copied: the section is a part of a larger read.
  return { own, encoded: kept.length === 0 ? undefined : Buffer.concat(kept) }
}

const userProperty = 0x26

/**
 * Decodes properties without their length. User properties, which the receivers alone read, are decoded only for them: a packet may have
 * 13,000 of them, which are all allowed everywhere.
 *
 * @param onOwn called with the bytes of each property that is not for the receivers of a message
 * @throws {MalformedPacket} as `readProperties`
 */
function parseProperties(
  section: Buffer,
  place: PropertySet,
  onOwn?: (start: number, end: number) => void,
): Properties {
  const fields = new MqttFields(section)
  const properties: Properties = {}
  while (fields.left > 0) {
    if (fields.next === userProperty && place !== 'message') {
      fields.skip(1)
      fields.skipText()
      fields.skipText()
      continue
    }
    const start = fields.position
    const row = byIdentifier.get(fields.variableByteInteger())
    if (!row || !allowed[place].has(row.name)) throw new MalformedPacket('it has a property that is not allowed there')
    readProperty(fields, row, properties)
    if (!allowed.message.has(row.name)) onOwn?.(start, fields.position)
  }
  return properties
}

function readProperty(fields: MqttFields, row: Row, properties: Properties): void {
  const { name, isPositive } = row
  if (name === 'userProperties') {
    const pair: UserProperty = [text(fields), text(fields)]
    if (properties.userProperties) (properties.userProperties as UserProperty[]).push(pair)
    else properties.userProperties = [pair]
    return
  }
  if (properties[name] !== undefined) throw protocolError(`it has ${spaced(name)} twice`)
  const value = readValue(fields, row)
  if (isPositive && value === 0) throw protocolError(`its ${spaced(name)} is 0`)
  if (name === 'responseTopic' && (value === '' || /[+#]/.test(String(value)))) {
    throw protocolError('its response topic is no topic') // [MQTT-3.3.2-14]
  }
  Object.assign(properties, { [name]: name === 'subscriptionIdentifiers' ? [value] : value })
}

function readValue(fields: MqttFields, { name, type }: Row): boolean | number | string | Buffer {
  switch (type) {
    case 'flag': {
      const byte = fields.byte()
      if (byte > 1) throw protocolError(`its ${spaced(name)} is neither 0 nor 1`)
      return byte === 1
    }
    case 'byte':
      return fields.byte()
    case 'uint16':
      return fields.integer()
    case 'uint32':
      return fields.longInteger()
    case 'variable':
      return fields.variableByteInteger()
    case 'binary':
      // Copied: it is a part of a larger read.
      return Buffer.from(fields.binary())
    default:
      return text(fields)
  }
}

/** A text of UTF-8 (§1.5.4). */
function text(fields: MqttFields): string {
  const bytes = fields.binary()
  if (!isUtf8(bytes)) throw new MalformedPacket('a text is not UTF-8') // [MQTT-1.5.4-1]
  const read = bytes.toString()
  if (hasForbiddenCharacter(read)) throw new MalformedPacket('a text has a forbidden character') // [MQTT-1.5.4-2]
  return read
}

function protocolError(problem: string): MalformedPacket {
  return new MalformedPacket(problem, reasonCodes.protocolError)
}

/** A name in words, for errors. */
function spaced(name: string): string {
  return name.replace(/[A-Z]/g, letter => ` ${letter.toLowerCase()}`)
}

/** Decodes `Message.properties`. */
export function decodeMessageProperties(encoded: Buffer): MessageProperties {
  return parseProperties(encoded, 'message')
}

/**
 * Encodes properties, without their length, in the order of their identifiers.
 *
 * @throws {RangeError} for a text or data of more than 65,535 bytes, or a number out of range
 */
export function encodeProperties(properties: Properties): Buffer {
  const parts: Buffer[] = []
  for (const [name, row] of byName) {
    const value = properties[name]
    if (value === undefined) continue
    const values = Array.isArray(value) ? value : [value]
    for (const one of values) parts.push(Buffer.from([row.identifier]), encodeValue(row.type, one))
  }
  return Buffer.concat(parts)
}

function encodeValue(type: Type, value: unknown): Buffer {
  switch (type) {
    case 'flag':
    case 'byte':
      return Buffer.from([Number(value)])
    case 'uint16': {
      const bytes = Buffer.alloc(2)
      bytes.writeUInt16BE(Number(value))
      return bytes
    }
    case 'uint32': {
      const bytes = Buffer.alloc(4)
      bytes.writeUInt32BE(Number(value))
      return bytes
    }
    case 'variable':
      return variableByteInteger(Number(value))
    case 'pair':
      return Buffer.concat((value as UserProperty).map(one => withLength(Buffer.from(one))))
    default:
      return withLength(typeof value === 'string' ? Buffer.from(value) : (value as Buffer))
  }
}

function withLength(bytes: Buffer): Buffer {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** Encodes a variable byte integer (§1.5.5). @throws {RangeError} for a number that it cannot have */
export function variableByteInteger(value: number): Buffer {
  if (!Number.isInteger(value) || value < 0 || value > maxVariable) throw new RangeError('no variable byte integer')
  const bytes: number[] = []
  let rest = value
  do {
    const byte = rest & 0x7f
    rest >>>= 7
    bytes.push(rest > 0 ? byte | 0x80 : byte)
  } while (rest > 0)
  return Buffer.from(bytes)
}
