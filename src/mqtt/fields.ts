import { reasonCodes } from './reason-codes.js'
import { isText } from './text.js'

/** An MQTT packet is malformed, or breaks the protocol; the message has nothing of its content. */
export class MalformedPacket extends Error {
  /** The reason code of MQTT 5. */
  readonly reasonCode: number

  constructor(message: string, reasonCode: number = reasonCodes.malformedPacket) {
    super(message)
    this.reasonCode = reasonCode
  }
}

/** Reads the fields of an MQTT packet in order. Each method throws `MalformedPacket` at its end. */
export class MqttFields {
  /** Offset of the next field. */
  position = 0
  readonly #bytes: Buffer

  /** @param bytes the packet without its fixed header */
  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Remaining bytes. */
  get left(): number {
    return this.#bytes.length - this.position
  }

  /** Skips `count` bytes. @returns their offset */
  skip(count: number): number {
    const start = this.position
    if (start + count > this.#bytes.length) throw new MalformedPacket('it is cut short')
    this.position += count
    return start
  }

  /** The next byte, which stays the next one; `undefined` at the end. */
  get next(): number | undefined {
    return this.#bytes[this.position]
  }

  byte(): number {
    return this.#bytes.readUInt8(this.skip(1))
  }

  /** A two-byte integer, the high byte first (MQTT 3.1.1 §1.5.2). */
  integer(): number {
    return this.#bytes.readUInt16BE(this.skip(2))
  }

  /** A four-byte integer, the high byte first (MQTT 5 §1.5.3). */
  longInteger(): number {
    return this.#bytes.readUInt32BE(this.skip(4))
  }

  /** The next `length` bytes; not copied. */
  part(length: number): Buffer {
    const start = this.skip(length)
    return this.#bytes.subarray(start, start + length)
  }

  /** Two bytes of length, then the data (MQTT 3.1.1 §1.5.3); not copied. */
  binary(): Buffer {
    const length = this.integer()
    const start = this.skip(length)
    return this.#bytes.subarray(start, start + length)
  }

  /** A text (MQTT 5 §1.5.4), which must be valid. */
  text(): string {
    const length = this.integer()
    const start = this.skip(length)
    if (!isText(this.#bytes, start, start + length)) throw new MalformedPacket('a text is not valid')
    return this.#bytes.toString('utf8', start, start + length)
  }

  /** Skips a text, which must be valid. */
  skipText(): void {
    const length = this.integer()
    const start = this.skip(length)
    if (!isText(this.#bytes, start, start + length)) throw new MalformedPacket('a text is not valid')
  }

  /** Seven bits per byte, the lowest first, at most four bytes (MQTT 5 §1.5.5). */
  variableByteInteger(): number {
    let value = 0
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.byte()
      value += (byte & 0x7f) << shift
      if ((byte & 0x80) === 0) return value
    }
    throw new MalformedPacket('a length has more than four bytes')
  }
}
