/** A packet over the limit, or a length that no MQTT packet has. */
export type GuardFinding = 'packet-too-large' | 'not-mqtt'

const publishType = 3
const subscribeType = 8
const unsubscribeType = 10

/**
 * The largest SUBSCRIBE and UNSUBSCRIBE, in bytes: a thousand filters of 130 bytes. Aedes parses such a packet synchronously, and it may
 * have a filter in every three bytes: 16 MiB would block the event loop for seconds.
 */
export const maxSubscribeSize = 128 * 1024

/**
 * Follows the MQTT packets of a byte stream by their fixed headers, across chunks. It reads two to five bytes of each packet and skips the
 * rest, so that a packet over the limit is found when it begins.
 */
export class PacketGuard {
  /** Complete packets. */
  packets = 0
  /** PUBLISH packets among them. */
  publishes = 0
  bytes = 0
  /** Bytes of complete packets other than PUBLISH. */
  responseBytes = 0

  readonly #limit: number
  /** Remaining bytes of the current packet's body. */
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

  /** Size of the incomplete packet in bytes; 0 before its length is known. */
  get unfinished(): number {
    return this.#body > 0 ? this.#size : 0
  }

  /**
   * Scans the stream's next bytes, to the end of at most `maxPackets` packets; `bytes` counts the scanned ones. A finding is final.
   *
   * @param mayComplete called with the size of each SUBSCRIBE and UNSUBSCRIBE: where it returns false, the scan stops before the packet's
   *   last byte
   */
  scan(
    chunk: Uint8Array,
    maxPackets = Number.POSITIVE_INFINITY,
    mayComplete?: (bytes: number) => boolean,
  ): GuardFinding | undefined {
    if (!this.#finding) this.bytes += this.#walk(chunk, this.packets + maxPackets, mayComplete)
    return this.#finding
  }

  /** Scans until `last` packets are complete; returns the scanned bytes. */
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
