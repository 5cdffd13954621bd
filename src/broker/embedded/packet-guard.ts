/** What the guard has against the bytes it saw: a packet beyond the limit, or a length that no MQTT packet has. */
export type GuardFinding = 'packet-too-large' | 'not-mqtt'

const publishType = 3
const subscribeType = 8
const unsubscribeType = 10

/**
 * The largest SUBSCRIBE and UNSUBSCRIBE, in bytes: a thousand filters of 130 bytes. Aedes takes such a packet apart in one go, at
 * 3 µs for each filter, and there may be one in every three bytes: 16 MiB of them stopped everybody for eight seconds.
 */
export const maxSubscribeSize = 128 * 1024

/**
 * Follows the MQTT packets of one byte stream by their fixed headers alone, however the stream is cut into chunks.
 *
 * It looks at two to five bytes of each packet and skips the rest, so that a limit on packet sizes costs next to
 * nothing, and is known when a packet begins and not when its last byte has been collected.
 */
export class PacketGuard {
  /** Complete packets, of any kind. */
  packets = 0
  /** PUBLISH packets among them. */
  publishes = 0
  bytes = 0
  /** Bytes of the complete packets that are no PUBLISH. */
  responseBytes = 0

  readonly #limit: number
  /** Bytes of the current packet's body that are still to come. */
  #body = 0
  /** The current packet's first byte, or -1 between packets. */
  #first = -1
  #length = 0
  #lengthBytes = 0
  #finding: GuardFinding | undefined

  /** @param limit the largest allowed packet in bytes, fixed header included */
  constructor(limit: number) {
    this.#limit = limit
  }

  /** Size of the packet that is not complete, once its length is known; else 0. In bytes. */
  get unfinished(): number {
    return this.#body > 0 ? this.#size : 0
  }

  /**
   * Takes the stream's next bytes, to the end of the `most`-th packet that ends in them: `bytes` tells how many those
   * were. Once it has found something, it finds that for ever.
   *
   * @param mayComplete asked for each SUBSCRIBE and UNSUBSCRIBE of so many bytes: if it says no, this stops before the packet's last byte
   */
  scan(
    chunk: Uint8Array,
    most = Number.POSITIVE_INFINITY,
    mayComplete?: (bytes: number) => boolean,
  ): GuardFinding | undefined {
    if (!this.#finding) this.bytes += this.#walk(chunk, this.packets + most, mayComplete)
    return this.#finding
  }

  /** Goes over the chunk until `last` packets are complete; returns how far it came. */
  #walk(chunk: Uint8Array, last: number, mayComplete?: (bytes: number) => boolean): number {
    const end = chunk.length
    let at = 0
    while (at < end && this.packets < last) {
      if (this.#body > 0) {
        const skipped = Math.min(this.#body, end - at)
        if (mayComplete && skipped === this.#body && hasFilters(this.#first >> 4) && !mayComplete(this.#size)) {
          this.#body = 1
          return at + skipped - 1
        }
        this.#body -= skipped
        at += skipped
        if (this.#body === 0) this.#complete()
        continue
      }
      const byte = chunk[at++]!
      if (this.#first < 0) {
        this.#first = byte
        continue
      }
      // MQTT 3.1.1 §2.2.3: seven bits each, least significant first; four bytes at most.
      this.#length |= (byte & 0x7f) << (7 * this.#lengthBytes)
      this.#lengthBytes++
      if (byte & 0x80) {
        if (this.#lengthBytes === 4) {
          this.#finding = 'not-mqtt'
          return at
        }
        continue
      }
      if (this.#size > this.#limitOf(this.#first >> 4)) {
        this.#finding = 'packet-too-large'
        return at
      }
      this.#body = this.#length
      if (this.#body === 0) this.#complete()
    }
    return at
  }

  /** Bytes of the current packet. */
  get #size(): number {
    return 1 + this.#lengthBytes + this.#length
  }

  #limitOf(type: number): number {
    return hasFilters(type) ? Math.min(this.#limit, maxSubscribeSize) : this.#limit
  }

  #complete(): void {
    this.packets++
    if (this.#first >> 4 === publishType) this.publishes++
    else this.responseBytes += this.#size
    this.#first = -1
    this.#length = 0
    this.#lengthBytes = 0
  }
}

function hasFilters(type: number): boolean {
  return type === subscribeType || type === unsubscribeType
}
