/** Approximate bytes of the object of one chunk, or of one frame of a fragmented message, without its data. */
const objectBytes = 128
/** The lowest opcode of a control frame (RFC 6455 §5.5). */
const firstControl = 8

/**
 * Reads the frame headers of one client (RFC 6455 §5.2) and computes the memory of its unfinished message. The decoder refuses invalid
 * frames; after them, the values are meaningless.
 */
export class UnfinishedMessage {
  /** Bytes of its chunks and their objects; 0 if the last message is complete. */
  held = 0
  /** Bytes of the header so far, and of the whole header. */
  #header = 0
  #headerLength = 2
  #first = 0
  #lengthBytes = 0
  /** Bytes of the payload, as far as the header is read. */
  #length = 0
  /** Missing bytes of the payload, if the header is complete. */
  #left = 0
  #isInMessage = false
  /** Frames of the message in the current chunk. */
  #frames = 0

  /** Processes the next bytes of the connection. */
  read(chunk: Buffer): void {
    const { length } = chunk
    this.#frames = 0
    let at = 0
    while (at < length) {
      if (this.#left > 0) {
        const run = Math.min(this.#left, length - at)
        this.#left -= run
        at += run
        if (this.#left === 0) this.#endFrame()
      } else {
        this.#readHeader(chunk[at] ?? 0)
        at += 1
      }
    }
    const isUnfinished = this.#isInMessage || this.#header > 0 || this.#left > 0
    // A slice of a chunk keeps the whole chunk in memory.
    this.held = isUnfinished ? this.held + length + objectBytes * (1 + this.#frames) : 0
  }

  #readHeader(byte: number): void {
    const at = this.#header++
    if (at === 0) {
      this.#first = byte
      this.#headerLength = 2
      return
    }
    if (at === 1) {
      const length = byte & 0x7f
      this.#lengthBytes = length === 126 ? 2 : length === 127 ? 8 : 0
      this.#length = this.#lengthBytes === 0 ? length : 0
      this.#headerLength = 2 + this.#lengthBytes + (byte > 0x7f ? 4 : 0)
    } else if (at < 2 + this.#lengthBytes) {
      this.#length = this.#length * 256 + byte
    }
    if (this.#header === this.#headerLength) this.#beginFrame()
  }

  #beginFrame(): void {
    this.#header = 0
    if ((this.#first & 0x0f) < firstControl) {
      this.#isInMessage = true
      this.#frames += 1
    }
    this.#left = this.#length
    if (this.#left === 0) this.#endFrame()
  }

  #endFrame(): void {
    const isLast = this.#first > 0x7f && (this.#first & 0x0f) < firstControl
    if (!isLast) return
    this.#isInMessage = false
    this.#frames = 0
    this.held = 0
  }
}
