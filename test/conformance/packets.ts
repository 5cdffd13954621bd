/*
 * MQTT 5 on the wire, written from the specification for these tests alone: nothing of `src/` judges itself here. What is encoded is not checked,
 * so that tests can send what MQTT forbids; what a server sends is decoded strictly (`decodePacket`).
 */

export type UserProperty = readonly [name: string, value: string]

/** Properties by name, encoded in the order of their keys. */
export interface Properties {
  payloadFormatIndicator?: number
  messageExpiryInterval?: number
  contentType?: string
  responseTopic?: string
  correlationData?: Buffer
  subscriptionIdentifier?: number | readonly number[]
  sessionExpiryInterval?: number
  assignedClientIdentifier?: string
  serverKeepAlive?: number
  authenticationMethod?: string
  authenticationData?: Buffer
  requestProblemInformation?: number
  willDelayInterval?: number
  requestResponseInformation?: number
  responseInformation?: string
  serverReference?: string
  reasonString?: string
  receiveMaximum?: number
  topicAliasMaximum?: number
  topicAlias?: number
  maximumQoS?: number
  retainAvailable?: number
  userProperties?: readonly UserProperty[]
  maximumPacketSize?: number
  wildcardSubscriptionAvailable?: number
  subscriptionIdentifierAvailable?: number
  sharedSubscriptionAvailable?: number
}

/** Encoded properties without their length, for those that are not allowed, too. */
export type AnyProperties = Properties | Buffer

type Encoding = 'flag' | 'two' | 'four' | 'variable' | 'text' | 'binary' | 'pair'

/** Identifier, name, encoding, and the packets in which a server may send it (table 2-4). */
const propertyTable: readonly (readonly [number, keyof Properties, Encoding, string])[] = [
  [0x01, 'payloadFormatIndicator', 'flag', 'publish'],
  [0x02, 'messageExpiryInterval', 'four', 'publish'],
  [0x03, 'contentType', 'text', 'publish'],
  [0x08, 'responseTopic', 'text', 'publish'],
  [0x09, 'correlationData', 'binary', 'publish'],
  [0x0b, 'subscriptionIdentifier', 'variable', 'publish'],
  [0x11, 'sessionExpiryInterval', 'four', 'connack'],
  [0x12, 'assignedClientIdentifier', 'text', 'connack'],
  [0x13, 'serverKeepAlive', 'two', 'connack'],
  [0x15, 'authenticationMethod', 'text', 'connack auth'],
  [0x16, 'authenticationData', 'binary', 'connack auth'],
  [0x17, 'requestProblemInformation', 'flag', ''],
  [0x18, 'willDelayInterval', 'four', ''],
  [0x19, 'requestResponseInformation', 'flag', ''],
  [0x1a, 'responseInformation', 'text', 'connack'],
  [0x1c, 'serverReference', 'text', 'connack disconnect'],
  [0x1f, 'reasonString', 'text', 'connack puback pubrec pubrel pubcomp suback unsuback disconnect auth'],
  [0x21, 'receiveMaximum', 'two', 'connack'],
  [0x22, 'topicAliasMaximum', 'two', 'connack'],
  [0x23, 'topicAlias', 'two', 'publish'],
  [0x24, 'maximumQoS', 'flag', 'connack'],
  [0x25, 'retainAvailable', 'flag', 'connack'],
  [0x26, 'userProperties', 'pair', 'publish connack puback pubrec pubrel pubcomp suback unsuback disconnect auth'],
  [0x27, 'maximumPacketSize', 'four', 'connack'],
  [0x28, 'wildcardSubscriptionAvailable', 'flag', 'connack'],
  [0x29, 'subscriptionIdentifierAvailable', 'flag', 'connack'],
  [0x2a, 'sharedSubscriptionAvailable', 'flag', 'connack'],
]

export function variable(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0))
    rest = Math.floor(rest / 128)
  } while (rest > 0)
  return Buffer.from(bytes)
}

export function two(value: number): Buffer {
  return Buffer.from([value >> 8, value & 0xff])
}

export function four(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** A text or binary data, after its length. */
export function text(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value as string)
  return Buffer.concat([two(bytes.length), bytes])
}

function encodeValue(encoding: Encoding, value: unknown): Buffer {
  switch (encoding) {
    case 'flag':
      return Buffer.from([value as number])
    case 'two':
      return two(value as number)
    case 'four':
      return four(value as number)
    case 'variable':
      return variable(value as number)
    case 'pair':
      return Buffer.concat((value as UserProperty).map(text))
    default:
      return text(value as string | Buffer)
  }
}

/** Properties without their length. */
export function encodeProperties(properties: AnyProperties): Buffer {
  if (Buffer.isBuffer(properties)) return properties
  const parts = Object.entries(properties).flatMap(([name, value]) => {
    const [identifier, , encoding] = propertyTable.find(row => row[1] === name) as (typeof propertyTable)[number]
    const values: readonly unknown[] = Array.isArray(value) ? value : [value]
    return values.map(each => Buffer.concat([Buffer.from([identifier]), encodeValue(encoding, each)]))
  })
  return Buffer.concat(parts)
}

export function properties(given: AnyProperties = {}): Buffer {
  const bytes = encodeProperties(given)
  return Buffer.concat([variable(bytes.length), bytes])
}

/** Any packet: its first byte, then the remaining length, then the parts. */
export function packet(first: number, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([first]), variable(body.length), body])
}

export type QoS = 0 | 1 | 2

export interface Will {
  readonly topic: string | Buffer
  readonly payload?: string | Buffer
  readonly qos?: number
  readonly retain?: boolean
  readonly properties?: AnyProperties
}

export interface ConnectOptions {
  readonly clientId?: string | Buffer
  readonly cleanStart?: boolean
  /** In seconds. */
  readonly keepAlive?: number
  readonly properties?: AnyProperties
  readonly will?: Will
  readonly userName?: string | Buffer
  readonly password?: string | Buffer
  /** Bits of the connect flags to flip. */
  readonly flipFlags?: number
  readonly protocolName?: string
  readonly protocolVersion?: number
}

export function connectPacket(options: ConnectOptions = {}): Buffer {
  const { clientId = '', cleanStart = true, keepAlive = 0, will, userName, password } = options
  const flags =
    (cleanStart ? 0x02 : 0) |
    (will ? 0x04 | ((will.qos ?? 0) << 3) | (will.retain ? 0x20 : 0) : 0) |
    (password === undefined ? 0 : 0x40) |
    (userName === undefined ? 0 : 0x80)
  return packet(
    0x10,
    text(options.protocolName ?? 'MQTT'),
    Buffer.from([options.protocolVersion ?? 5, flags ^ (options.flipFlags ?? 0)]),
    two(keepAlive),
    properties(options.properties),
    text(clientId),
    ...(will ? [properties(will.properties), text(will.topic), text(will.payload ?? 'will')] : []),
    ...(userName === undefined ? [] : [text(userName)]),
    ...(password === undefined ? [] : [text(password)]),
  )
}

export interface PublishOptions {
  readonly qos?: number
  readonly id?: number
  readonly retain?: boolean
  readonly dup?: boolean
  readonly properties?: AnyProperties
}

export function publishPacket(topic: string | Buffer, payload: string | Buffer, options: PublishOptions = {}): Buffer {
  const { qos = 0, retain = false, dup = false } = options
  const first = 0x30 | (dup ? 8 : 0) | (qos << 1) | (retain ? 1 : 0)
  const id = qos > 0 ? two(options.id ?? 1) : Buffer.alloc(0)
  return packet(first, text(topic), id, properties(options.properties), Buffer.from(payload as string))
}

const acknowledgements = { puback: 0x40, pubrec: 0x50, pubrel: 0x62, pubcomp: 0x70 } as const
export type AcknowledgementType = keyof typeof acknowledgements

/** An acknowledgement in its shortest form, or with a reason code and properties. */
export function acknowledgement(type: AcknowledgementType, id: number, code?: number, given?: AnyProperties): Buffer {
  const rest = code === undefined ? [] : [Buffer.from([code]), ...(given ? [properties(given)] : [])]
  return packet(acknowledgements[type], two(id), ...rest)
}

/** Subscription options: add up QoS and these. */
export const noLocal = 0x04
export const retainAsPublished = 0x08
/** Retained messages only for a new subscription. */
export const retainIfNew = 0x10
export const retainNever = 0x20

export type Filter = string | readonly [filter: string | Buffer, options: number]

export function subscribePacket(id: number, filters: readonly Filter[], given?: AnyProperties): Buffer {
  const entries = filters.map(each => {
    const [filter, options] = typeof each === 'string' ? [each, 0] : each
    return Buffer.concat([text(filter), Buffer.from([options])])
  })
  return packet(0x82, two(id), properties(given), ...entries)
}

export function unsubscribePacket(id: number, filters: readonly (string | Buffer)[], given?: AnyProperties): Buffer {
  return packet(0xa2, two(id), properties(given), ...filters.map(text))
}

export const pingreq = packet(0xc0)

export function disconnectPacket(code?: number, given?: AnyProperties): Buffer {
  const rest = code === undefined ? [] : [Buffer.from([code]), ...(given ? [properties(given)] : [])]
  return packet(0xe0, ...rest)
}

export function authPacket(code: number, given?: AnyProperties): Buffer {
  return packet(0xf0, Buffer.from([code]), properties(given))
}

/** A packet of the server. */
export type Received =
  | {
      readonly type: 'connack'
      readonly sessionPresent: boolean
      readonly code: number
      readonly properties: Properties
    }
  | Publish
  | { readonly type: AcknowledgementType; readonly id: number; readonly code: number; readonly properties: Properties }
  | {
      readonly type: 'suback' | 'unsuback'
      readonly id: number
      readonly codes: readonly number[]
      readonly properties: Properties
    }
  | { readonly type: 'pingresp' }
  | { readonly type: 'disconnect' | 'auth'; readonly code: number; readonly properties: Properties }

export interface Publish {
  readonly type: 'publish'
  /** Empty where the packet has only a topic alias. */
  readonly topic: string
  readonly payload: string
  readonly qos: number
  readonly retain: boolean
  readonly dup: boolean
  readonly id: number
  readonly properties: Properties
}

const types = [
  '',
  '',
  'connack',
  'publish',
  'puback',
  'pubrec',
  'pubrel',
  'pubcomp',
  '',
  'suback',
  '',
  'unsuback',
  '',
  'pingresp',
  'disconnect',
  'auth',
] as const

const refusals = [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]
/** The reason codes that a server may send, by packet. */
const serverCodes: Readonly<Record<string, readonly number[]>> = {
  connack: [
    0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c,
    0x9d, 0x9f,
  ],
  puback: [0, 0x10, ...refusals],
  pubrec: [0, 0x10, ...refusals],
  pubrel: [0, 0x92],
  pubcomp: [0, 0x92],
  suback: [0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2],
  unsuback: [0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91],
  disconnect: [
    0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
    0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
  ],
  auth: [0, 0x18, 0x19],
}

/** What the specification forbids a server to send. */
export class Violation extends Error {
  override readonly name = 'Violation'
}

function demand(isRight: boolean, what: string): asserts isRight {
  if (!isRight) throw new Violation(what)
}

/** Reads the fields of one packet. */
class Fields {
  #position = 0
  readonly #bytes: Buffer

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get left(): number {
    return this.#bytes.length - this.#position
  }

  bytes(length: number): Buffer {
    demand(length <= this.left, 'a field is longer than its packet')
    this.#position += length
    return this.#bytes.subarray(this.#position - length, this.#position)
  }

  byte(): number {
    return this.bytes(1)[0] as number
  }

  two(): number {
    return this.bytes(2).readUInt16BE()
  }

  four(): number {
    return this.bytes(4).readUInt32BE()
  }

  variable(): number {
    let value = 0
    for (let shift = 0; ; shift++) {
      const byte = this.byte()
      value += (byte & 0x7f) * 128 ** shift
      if (byte < 0x80) {
        demand(shift === 0 || byte !== 0, 'a variable byte integer has more bytes than needed [MQTT-1.5.5-1]')
        return value
      }
      demand(shift < 3, 'a variable byte integer has more than four bytes')
    }
  }

  binary(): Buffer {
    return this.bytes(this.two())
  }

  text(): string {
    // Fatal for what is not UTF-8 [MQTT-1.5.4-1]; a BOM stays [MQTT-1.5.4-3].
    const value = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(this.binary())
    demand(!value.includes('\0'), 'a text has U+0000 [MQTT-1.5.4-2]')
    return value
  }
}

function decodeValue(fields: Fields, encoding: Encoding): unknown {
  switch (encoding) {
    case 'flag': {
      const value = fields.byte()
      demand(value <= 1, 'a flag is neither 0 nor 1')
      return value
    }
    case 'two':
      return fields.two()
    case 'four':
      return fields.four()
    case 'variable':
      return fields.variable()
    case 'pair':
      return [fields.text(), fields.text()]
    case 'binary':
      return Buffer.from(fields.binary())
    default:
      return fields.text()
  }
}

const positive: readonly string[] = ['subscriptionIdentifier', 'receiveMaximum', 'maximumPacketSize', 'topicAlias']
const repeated: readonly string[] = ['subscriptionIdentifier', 'userProperties']

function decodeProperties(fields: Fields, type: string): Properties {
  const section = new Fields(fields.bytes(fields.variable()))
  const all: Record<string, unknown> = {}
  while (section.left > 0) {
    const identifier = section.variable()
    const row = propertyTable.find(each => each[0] === identifier)
    demand(row !== undefined, `there is no property ${identifier}`)
    const [, name, encoding, packets] = row
    demand(packets.split(' ').includes(type), `a server sends no ${name} in ${type}`)
    const value = decodeValue(section, encoding)
    demand(!positive.includes(name) || value !== 0, `${name} is 0`)
    if (repeated.includes(name)) all[name] = [...((all[name] as unknown[]) ?? []), value]
    else {
      demand(!(name in all), `${name} is there twice`)
      all[name] = value
    }
  }
  return all as Properties
}

/** Bytes of the first packet; `undefined` while it is not whole. @throws {Violation} for a remaining length that no packet has */
export function packetSize(bytes: Buffer): number | undefined {
  let length = 0
  for (let at = 1; at < bytes.length; at++) {
    const byte = bytes[at] as number
    if (at > 4) throw new Violation('a remaining length has more than four bytes')
    length += (byte & 0x7f) * 128 ** (at - 1)
    if (byte >= 0x80) continue
    if (at > 1 && byte === 0) throw new Violation('a remaining length has more bytes than needed [MQTT-1.5.5-1]')
    return bytes.length >= at + 1 + length ? at + 1 + length : undefined
  }
  return undefined
}

/** Decodes one whole packet of a server. @throws {Violation} for what the specification forbids it to send */
export function decodePacket(bytes: Buffer): Received {
  const first = bytes[0] as number
  const start = bytes.findIndex((byte, at) => at > 0 && byte < 0x80) + 1
  const type = types[first >> 4] ?? ''
  const flags = first & 0x0f
  const fields = new Fields(bytes.subarray(start))
  if (type === '') throw new Violation(`a server sends no packet of type ${first >> 4}`)
  if (type !== 'publish') demand(flags === (type === 'pubrel' ? 2 : 0), `${type} has the flags ${flags} [MQTT-2.1.3-1]`)
  const decoded = decodeFields(type, flags, fields)
  demand(fields.left === 0, `${type} is longer than its fields`)
  return decoded
}

function decodeFields(type: Exclude<(typeof types)[number], ''>, flags: number, fields: Fields): Received {
  switch (type) {
    case 'connack': {
      const acknowledge = fields.byte()
      demand(acknowledge <= 1, 'CONNACK has reserved flags [MQTT-3.2.2-1]')
      const code = codeOf(fields, type)
      demand(code === 0 || acknowledge === 0, 'CONNACK refuses with a session [MQTT-3.2.2-6]')
      return { type, sessionPresent: acknowledge === 1, code, properties: decodeProperties(fields, type) }
    }
    case 'publish':
      return decodePublish(flags, fields)
    case 'suback':
    case 'unsuback': {
      const id = fields.two()
      const given = decodeProperties(fields, type)
      const codes: number[] = []
      while (fields.left > 0) codes.push(codeOf(fields, type))
      return { type, id, codes, properties: given }
    }
    case 'pingresp':
      return { type }
    case 'disconnect':
    case 'auth':
      return { type, ...decodeReason(fields, type) }
    default: {
      const id = fields.two()
      return { type, id, ...decodeReason(fields, type) }
    }
  }
}

/** Reason code and properties, which may both be left out. */
function decodeReason(fields: Fields, type: string): { code: number; properties: Properties } {
  const code = fields.left > 0 ? codeOf(fields, type) : 0
  return { code, properties: fields.left > 0 ? decodeProperties(fields, type) : {} }
}

function codeOf(fields: Fields, type: string): number {
  const code = fields.byte()
  demand(serverCodes[type]?.includes(code) ?? false, `${type} has the reason code 0x${code.toString(16)}`)
  return code
}

function decodePublish(flags: number, fields: Fields): Publish {
  const qos = (flags >> 1) & 3
  const dup = (flags & 8) > 0
  demand(qos < 3, 'PUBLISH has QoS 3 [MQTT-3.3.1-4]')
  demand(qos > 0 || !dup, 'PUBLISH has QoS 0 and DUP [MQTT-3.3.1-2]')
  const topic = fields.text()
  demand(!/[+#]/.test(topic), 'PUBLISH has a wildcard in its topic [MQTT-3.3.2-2]')
  const id = qos > 0 ? fields.two() : 0
  demand(qos === 0 || id > 0, 'PUBLISH has the packet identifier 0 [MQTT-2.2.1-4]')
  const given = decodeProperties(fields, 'publish')
  demand(topic !== '' || given.topicAlias !== undefined, 'PUBLISH has neither topic nor alias')
  const payload = fields.bytes(fields.left).toString()
  return { type: 'publish', topic, payload, qos, retain: (flags & 1) === 1, dup, id, properties: given }
}
