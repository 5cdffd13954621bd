import { GatewayError } from '../base/errors.js'
import { MalformedPacket, MqttFields } from '../mqtt/fields.js'
import { readProperties } from '../mqtt/properties.js'

/** CONNECT's packet type, in the upper four bits (MQTT 3.1.1 §2.2.1). The broker checks the flags in the others. */
const connectType = 1
/** Bytes of a remaining length (MQTT 3.1.1 §2.2.3). */
const maxRemainingLength = 4

/**
 * Buffers a client's first bytes until they are a complete MQTT CONNECT, of any version. Changes nothing, drops nothing, and checks only the
 * packet's type and size.
 */
export class ConnectInspector {
  /** Set when the CONNECT is complete. */
  facts: ConnectFacts | undefined

  readonly #limit: number
  #buffered: Buffer | undefined

  /** @param limit bytes of the whole packet */
  constructor(limit: number) {
    this.#limit = limit
  }

  get bufferedBytes(): number {
    return this.#buffered?.length ?? 0
  }

  /**
   * Takes the next bytes. Returns all bytes so far when the CONNECT is complete, and `undefined` before.
   *
   * @throws {GatewayError} `not-mqtt` or `connect-too-large`
   */
  push(chunk: Buffer): Buffer | undefined {
    const bytes = this.#buffered ? Buffer.concat([this.#buffered, chunk]) : chunk
    this.#buffered = bytes

    const header = readFixedHeader(bytes)
    if (!header) return undefined
    const size = header.length + header.remaining
    if (size > this.#limit) throw new GatewayError('connect-too-large', { hint: `over ${this.#limit} bytes` })
    if (size > bytes.length) return undefined
    this.facts = readConnect(bytes.subarray(header.length, size))
    this.#buffered = undefined
    return bytes
  }
}

/** The lengths of the fixed header and of the rest of the packet; `undefined` while the header is incomplete. */
function readFixedHeader(bytes: Buffer): { length: number; remaining: number } | undefined {
  if (bytes.length > 0 && bytes[0]! >> 4 !== connectType) {
    throw new GatewayError('not-mqtt', { hint: `the first byte is 0x${bytes.toString('hex', 0, 1)}, not 0x10` })
  }
  let remaining = 0
  for (let i = 0; i < maxRemainingLength; i++) {
    const byte = bytes[1 + i]
    if (byte === undefined) return undefined
    remaining += (byte & 0x7f) * 128 ** i
    if ((byte & 0x80) === 0) return { length: 2 + i, remaining }
  }
  throw new GatewayError('not-mqtt', { hint: 'its remaining length has more than four bytes' })
}

/*
 * Not `mqtt-packet`, which has a stream and an event emitter for each parser: 8 % of the cost of a new connection.
 */

/** The client in an MQTT CONNECT, as far as it could be read. Never the password, never the will. */
export interface ConnectFacts {
  clientId: string | undefined
  /** 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5; the broker may refuse it. */
  protocolVersion: number | undefined
  username: string | undefined
  /** The largest packet that a client of MQTT 5 takes, in bytes; left out for any. */
  maximumPacketSize?: number
}

/** Added to its version by a bridge between brokers (mosquitto's `try_private`). */
const bridgeBit = 0x80

/** The connect flags (MQTT 3.1.1 §3.1.2.3). */
const willFlag = 0x04
const usernameFlag = 0x80

/**
 * Reads a CONNECT without its fixed header, up to the first malformed field. The broker checks and answers it. Never throws.
 */
export function readConnect(body: Buffer): ConnectFacts {
  const facts: ConnectFacts = { clientId: undefined, protocolVersion: undefined, username: undefined }
  try {
    readInto(facts, body)
  } catch (error) {
    if (!(error instanceof MalformedPacket)) throw error
  }
  return facts
}

function readInto(facts: ConnectFacts, body: Buffer): void {
  const fields = new MqttFields(body)
  fields.binary() // the protocol's name
  const protocolVersion = fields.byte() & ~bridgeBit
  facts.protocolVersion = protocolVersion
  const flags = fields.byte()
  fields.integer() // keep-alive
  const hasProperties = protocolVersion === 5
  if (hasProperties) readConnectProperties(facts, fields, body)
  facts.clientId = fields.binary().toString()
  if ((flags & willFlag) !== 0) {
    if (hasProperties) fields.skip(fields.variableByteInteger())
    fields.binary() // the topic
    fields.binary() // the payload
  }
  if ((flags & usernameFlag) !== 0) facts.username = fields.binary().toString()
}

/** Malformed properties are skipped. */
function readConnectProperties(facts: ConnectFacts, fields: MqttFields, body: Buffer): void {
  const start = fields.position
  fields.skip(fields.variableByteInteger())
  try {
    const properties = readProperties(new MqttFields(body.subarray(start, fields.position)), 'connect')
    if (properties?.maximumPacketSize !== undefined) facts.maximumPacketSize = properties.maximumPacketSize
  } catch (error) {
    if (!(error instanceof MalformedPacket)) throw error
  }
}
