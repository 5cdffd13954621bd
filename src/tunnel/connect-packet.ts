/*
 * MQTT's CONNECT, versions 3.1, 3.1.1 and 5, as far as it tells who connects. `mqtt-packet` could read it as well, with
 * a stream and an event emitter for each: 8 % of what a new connection costs.
 */

/** What an MQTT CONNECT tells about who connects. Never the password, never the will. */
export interface ConnectFacts {
  readonly clientId: string
  /** 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5. */
  readonly protocolVersion: number
  readonly username: string | undefined
}

/** The bytes are no CONNECT; the message says why, and repeats nothing of them. */
export class MalformedConnect extends Error {}

const protocolVersions: ReadonlySet<number> = new Set([3, 4, 5])
/** What a bridge between brokers adds to its version (mosquitto's `try_private`). */
const bridgeBit = 0x80

/** The connect flags (MQTT 3.1.1 §3.1.2.3). */
const reservedFlag = 0x01
const willFlag = 0x04
const willQosAndRetain = 0x38
const passwordFlag = 0x40
const usernameFlag = 0x80

/**
 * Reads a CONNECT without its fixed header.
 *
 * @throws {MalformedConnect}
 */
export function readConnect(body: Buffer): ConnectFacts {
  const fields = new Fields(body)
  const protocol = fields.string()
  if (protocol !== 'MQTT' && protocol !== 'MQIsdp') throw new MalformedConnect('it is of another protocol')
  const protocolVersion = fields.byte() & ~bridgeBit
  if (!protocolVersions.has(protocolVersion)) throw new MalformedConnect('its protocol version is none that there is')
  const flags = fields.byte()
  // [MQTT-3.1.2-3]
  if ((flags & reservedFlag) !== 0) throw new MalformedConnect('its reserved flag is set')
  const hasWill = (flags & willFlag) !== 0
  // [MQTT-3.1.2-13] and [MQTT-3.1.2-15]
  if (!hasWill && (flags & willQosAndRetain) !== 0) throw new MalformedConnect('it describes a will that it has not')
  const keepAlive = 2
  fields.skip(keepAlive)
  const hasProperties = protocolVersion === 5
  if (hasProperties) skipProperties(fields)
  const clientId = fields.string()
  if (hasWill) {
    if (hasProperties) skipProperties(fields)
    fields.skipBinary() // the topic
    fields.skipBinary() // the payload
  }
  const username = (flags & usernameFlag) === 0 ? undefined : fields.string()
  if ((flags & passwordFlag) !== 0) fields.skipBinary()
  return { clientId, protocolVersion, username }
}

type Skip = (fields: Fields) => void
const skipBytes =
  (count: number): Skip =>
  fields =>
    fields.skip(count)
const skipText: Skip = fields => fields.skipBinary()

/** How to pass over each property by its identifier (MQTT 5 §2.2.2.2). */
const properties: ReadonlyMap<number, Skip> = new Map([
  ...[0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2a].map(id => [id, skipBytes(1)] as const),
  ...[0x13, 0x21, 0x22, 0x23].map(id => [id, skipBytes(2)] as const),
  ...[0x02, 0x11, 0x18, 0x27].map(id => [id, skipBytes(4)] as const),
  ...[0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1a, 0x1c, 0x1f].map(id => [id, skipText] as const),
  [0x0b, (fields: Fields) => void fields.variableByteInteger()],
  [
    0x26, // a user property: a name and a value
    (fields: Fields) => {
      fields.skipBinary()
      fields.skipBinary()
    },
  ],
])

function skipProperties(fields: Fields): void {
  const length = fields.variableByteInteger()
  const end = fields.position + length
  while (fields.position < end) {
    const skip = properties.get(fields.byte())
    if (!skip) throw new MalformedConnect('it has an unknown property')
    skip(fields)
  }
  if (fields.position > end) throw new MalformedConnect('a property is longer than all properties')
}

/** Walks the fields of a packet, and never past its end. */
class Fields {
  position = 0
  readonly #bytes: Buffer

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Passes over `count` bytes and returns where they begin. */
  skip(count: number): number {
    const start = this.position
    this.position += count
    if (this.position > this.#bytes.length) throw new MalformedConnect('it is cut short')
    return start
  }

  byte(): number {
    return this.#bytes.readUInt8(this.skip(1))
  }

  /** MQTT 3.1.1 §1.5.3: two bytes of length, then as many bytes. */
  skipBinary(): void {
    this.skip(this.#bytes.readUInt16BE(this.skip(2)))
  }

  string(): string {
    const length = this.#bytes.readUInt16BE(this.skip(2))
    const start = this.skip(length)
    return this.#bytes.toString('utf8', start, start + length)
  }

  /** MQTT 5 §1.5.5: seven bits per byte, the lowest first, at most four bytes. */
  variableByteInteger(): number {
    let value = 0
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.byte()
      value += (byte & 0x7f) << shift
      if ((byte & 0x80) === 0) return value
    }
    throw new MalformedConnect('a length has more than four bytes')
  }
}
