import { MalformedPacket } from './fields.js'

/** An MQTT packet. */
export interface RawPacket {
  /** All of it. */
  readonly bytes: Buffer
  /** Length of the fixed header. */
  readonly headerLength: number
}

/** Splits a byte stream into MQTT packets, each in one piece. */
export class PacketSplitter {
  #chunks: Buffer[] = []
  #length = 0
  /** Bytes of the first packet, as far as they are known. */
  #needed = 2;

  /**
   * Takes the next bytes, and yields the packets that they complete; to be read to the end.
   *
   * @throws {MalformedPacket} where a length has more than four bytes
   */
  *push(chunk: Buffer): Generator<RawPacket, void, void> {
    this.#chunks.push(chunk)
    this.#length += chunk.length
    // A large packet is joined once.
    if (this.#length < this.#needed) return
    const bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks)
    let at = 0
    for (;;) {
      const size = sizeAt(bytes, at)
      this.#needed = size ? size.headerLength + size.remaining : bytes.length - at + 1
      if (!size || at + this.#needed > bytes.length) break
      yield { bytes: bytes.subarray(at, at + this.#needed), headerLength: size.headerLength }
      at += this.#needed
    }
    this.#chunks = at < bytes.length ? [bytes.subarray(at)] : []
    this.#length = bytes.length - at
  }
}

/** The lengths of the packet at `at`; `undefined` while its fixed header is incomplete (MQTT 5 §2.1). */
function sizeAt(bytes: Buffer, at: number): { readonly headerLength: number; readonly remaining: number } | undefined {
  let remaining = 0
  for (let index = 1; index <= 4; index++) {
    const byte = bytes[at + index]
    if (byte === undefined) return undefined
    remaining += (byte & 0x7f) << (7 * (index - 1))
    if ((byte & 0x80) === 0) return { headerLength: 1 + index, remaining }
  }
  throw new MalformedPacket('a length has more than four bytes')
}
