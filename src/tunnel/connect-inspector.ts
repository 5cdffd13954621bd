import { GatewayError } from '../base/errors.js'
import { type ConnectFacts, readConnect } from './connect-packet.js'

/** CONNECT's packet type, in the upper four bits (MQTT 3.1.1 §2.2.1). The flags in the others are for the broker to judge. */
const connectType = 1
/** A remaining length has at most four bytes (MQTT 3.1.1 §2.2.3). */
const longestRemainingLength = 4

/**
 * Looks at the beginning of a client's bytes, which has to be an MQTT CONNECT of any version, and holds
 * them back until it is complete. It changes nothing, drops nothing, and judges nothing but the packet's type and size.
 */
export class ConnectInspector {
  /** Set as soon as the CONNECT is complete. */
  facts: ConnectFacts | undefined

  readonly #limit: number
  #held: Buffer | undefined

  /** @param limit the largest CONNECT to take, in bytes of the whole packet */
  constructor(limit: number) {
    this.#limit = limit
  }

  /** Bytes that are held back. */
  get heldBytes(): number {
    return this.#held?.length ?? 0
  }

  /**
   * Takes the next bytes. Returns all bytes so far once the CONNECT is complete, and nothing before.
   *
   * @throws {Ending} `not-mqtt` or `connect-too-large`
   */
  push(chunk: Buffer): Buffer | undefined {
    const bytes = this.#held ? Buffer.concat([this.#held, chunk]) : chunk
    this.#held = bytes

    const header = readFixedHeader(bytes)
    if (!header) return undefined
    const size = header.length + header.remaining
    if (size > this.#limit) throw new GatewayError('connect-too-large', { hint: `over ${this.#limit} bytes` })
    if (size > bytes.length) return undefined
    this.facts = readConnect(bytes.subarray(header.length, size))
    this.#held = undefined
    return bytes
  }
}

/** The fixed header that `bytes` begin with and how much follows it, once it is there. */
function readFixedHeader(bytes: Buffer): { length: number; remaining: number } | undefined {
  if (bytes.length > 0 && bytes[0]! >> 4 !== connectType) {
    throw new GatewayError('not-mqtt', { hint: `the first byte is 0x${bytes.toString('hex', 0, 1)}, not 0x10` })
  }
  let remaining = 0
  for (let i = 0; i < longestRemainingLength; i++) {
    const byte = bytes[1 + i]
    if (byte === undefined) return undefined
    remaining += (byte & 0x7f) * 128 ** i
    if ((byte & 0x80) === 0) return { length: 2 + i, remaining }
  }
  throw new GatewayError('not-mqtt', { hint: 'its remaining length has more than four bytes' })
}
