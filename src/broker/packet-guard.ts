/** What the guard has against the bytes it saw: a packet beyond the limit, or a length that no MQTT packet has. */
export type GuardFinding = 'packet-too-large' | 'not-mqtt'

const publishType = 3

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

  /** Takes the stream's next bytes. Once it has found something, it finds that for ever. */
  scan(chunk: Uint8Array): GuardFinding | undefined {
    if (this.#finding) return this.#finding
    this.bytes += chunk.length
    const end = chunk.length
    let at = 0
    while (at < end) {
      if (this.#body > 0) {
        const skipped = Math.min(this.#body, end - at)
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
          return this.#finding
        }
        continue
      }
      if (1 + this.#lengthBytes + this.#length > this.#limit) {
        this.#finding = 'packet-too-large'
        return this.#finding
      }
      this.#body = this.#length
      if (this.#body === 0) this.#complete()
    }
    return undefined
  }

  #complete(): void {
    this.packets++
    if (this.#first >> 4 === publishType) this.publishes++
    this.#first = -1
    this.#length = 0
    this.#lengthBytes = 0
  }
}
