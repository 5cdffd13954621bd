import { isUtf8 } from 'node:buffer'
import { unmask } from 'bufferutil'
import type { ErrorReason } from '../base/errors.js'
import { maxControlPayload, opcodes } from './frame-writer.js'

/*
 * A client's WebSocket frames (RFC 6455 §5). Pure: the decoder sees bytes, never a socket.
 *
 * MQTT over WebSocket is a byte stream whose frame boundaries mean nothing [MQTT-6.0.0-2], so nothing is reassembled: one read becomes the
 * payload of its frames, joined in place.
 */

/** Callbacks for control frames. The buffers are only valid during the call. */
export interface ControlFrames {
  onPing(payload: Buffer): void
  onPong(payload: Buffer): void
}

/** The end of decoding: the client's close frame, or a violation of the protocol. */
export type DecoderEnd =
  | { readonly kind: 'close'; readonly code: number | undefined; readonly reason: string }
  | { readonly kind: 'violation'; readonly reason: ErrorReason; readonly hint: string }

/** Bytes of payload from which bufferutil's native loop unmasks: for fewer, the call into C++ costs more than it saves. */
const minNativeUnmask = 384

/** The first byte of nearly all frames: FIN, no reserved bit, binary. */
const finalBinary = 0x80 | opcodes.binary

/** FIN, opcode, length and mask: 2 + 8 + 4 bytes (RFC 6455 §5.2). */
const maxHeader = 14

/**
 * Decodes a client's frames, however they are split into reads.
 *
 * A frame may be of any length, because it streams; between two reads at most a partial header (≤ 13 bytes) and a partial control frame
 * (≤ 125 bytes) stay in memory.
 */
export class FrameDecoder {
  /** Set by a close frame or a violation of the protocol; nothing after it is decoded. */
  end: DecoderEnd | undefined
  /** Decoded headers, control frames included. */
  frames = 0

  readonly #control: ControlFrames
  /** XORed with the next four payload bytes, as a little-endian integer. */
  #mask = 0
  /** The mask as bytes, for bufferutil. */
  #maskBytes: Buffer | undefined
  /** Missing bytes of the current frame's payload. */
  #left = 0
  #opcode = 0
  /** Inside a fragmented message: continuation frames may follow, new data frames may not. */
  #fragmented = false
  /** The beginning of a header that a read has split. */
  #partialHeader: Buffer | undefined
  #partialLength = 0
  #controlPayload: Buffer | undefined
  #controlLength = 0

  constructor(control: ControlFrames) {
    this.#control = control
  }

  /**
   * Decodes one read **in place**. Returns the payload of its data frames, as a part of `chunk`: possibly empty, and only up to a close frame
   * or a violation (see `end`).
   */
  decode(chunk: Buffer): Buffer {
    const length = chunk.length
    const view = new DataView(chunk.buffer, chunk.byteOffset, length)
    let position = 0
    // The first payload stays in place; later ones are moved down over the headers between them.
    let start = 0
    let written = 0

    while (position < length && this.end === undefined) {
      if (this.#left === 0 && this.#opcode < opcodes.close) {
        const consumed =
          this.#partialLength === 0 ? this.#readHeader(chunk, view, position) : this.#completeHeader(chunk, position)
        if (consumed === 0) {
          this.#savePartialHeader(chunk, position)
          break
        }
        position += consumed
      }
      const run = Math.min(this.#left, length - position)
      if (this.#opcode >= opcodes.close) {
        this.#readControl(chunk, view, position, run)
      } else {
        if (written === start) start = written = position
        this.#unmask(chunk, view, position, run, written)
        written += run
      }
      position += run
    }
    return chunk.subarray(start, written)
  }

  /** Unmasks `run` bytes at `from` and moves them to `to` (≤ `from`), four at a time. */
  #unmask(chunk: Buffer, view: DataView, from: number, run: number, to: number): void {
    this.#left -= run
    if (run >= minNativeUnmask) {
      this.#maskBytes ??= Buffer.allocUnsafe(4)
      this.#maskBytes.writeInt32LE(this.#mask)
      unmask(chunk.subarray(from, from + run), this.#maskBytes)
      if (to !== from) chunk.copyWithin(to, from, from + run)
      this.#mask = rotate(this.#mask, run)
      return
    }
    const mask = this.#mask
    const end = from + run
    for (const whole = end - 3; from < whole; from += 4, to += 4) {
      view.setInt32(to, view.getInt32(from, true) ^ mask, true)
    }
    for (let octet = mask; from < end; octet >>>= 8) chunk[to++] = chunk[from++]! ^ octet
    this.#mask = rotate(mask, run)
  }

  /**
   * Reads the frame header at `at`. Returns its length, or 0 when it is incomplete.
   *
   * Fast path for nearly all frames: final, binary, less than 126 bytes. It makes a flood of small frames a third cheaper.
   */
  #readHeader(bytes: Buffer, view: DataView, at: number): number {
    const second = bytes[at + 1]
    if (bytes[at] === finalBinary && second !== undefined && !this.#fragmented && bytes.length - at >= 6) {
      const payloadLength = second - 0x80
      if (payloadLength >= 0 && payloadLength < 126) {
        this.#opcode = opcodes.binary
        this.#left = payloadLength
        this.#mask = view.getInt32(at + 2, true)
        this.frames++
        return 6
      }
    }
    return this.#parseHeader(bytes, at, bytes.length)
  }

  /**
   * Reads the frame header at `at`, with all rules of RFC 6455 §5.2 and §5.4–5.5 about headers. Returns its length, or 0 when it is incomplete
   * before `end`.
   */
  #parseHeader(bytes: Buffer, at: number, end: number): number {
    if (end - at < 2) return 0
    const first = bytes[at]!
    const second = bytes[at + 1]!
    const opcode = first & 0x0f
    const final = (first & 0x80) !== 0
    const shortLength = second & 0x7f

    const violation = this.#findViolation(first, second)
    if (violation !== undefined) return this.#fail('protocol-error', violation)
    if (opcode === opcodes.text) return this.#fail('text-frame', 'connect with binary frames') // [MQTT-6.0.0-1]

    const maskAt = at + (shortLength < 126 ? 2 : shortLength === 126 ? 4 : 10)
    if (end - maskAt < 4) return 0
    let payloadLength = shortLength
    if (shortLength === 126) payloadLength = bytes.readUInt16BE(at + 2)
    if (shortLength === 127) {
      payloadLength = bytes.readUInt32BE(at + 2) * 2 ** 32 + bytes.readUInt32BE(at + 6)
      // The most significant bit must be 0 (§5.2); above 2^53 a number is not exact.
      if (payloadLength > Number.MAX_SAFE_INTEGER) return this.#fail('protocol-error', 'a frame longer than 2^53 bytes')
    }

    this.#mask = bytes.readInt32LE(maskAt)
    this.#opcode = opcode
    this.#left = payloadLength
    this.#controlLength = 0
    if (opcode < opcodes.close) this.#fragmented = !final
    this.frames++
    return maskAt + 4 - at
  }

  #findViolation(first: number, second: number): string | undefined {
    const opcode = first & 0x0f
    if ((first & 0x70) !== 0) return 'a reserved bit is set, and no extension was agreed on'
    if ((second & 0x80) === 0) return 'a frame is not masked'
    switch (opcode) {
      case opcodes.continuation:
        return this.#fragmented ? undefined : 'a continuation frame without a message to continue'
      case opcodes.text:
      case opcodes.binary:
        return this.#fragmented ? 'a new message inside a fragmented one' : undefined
      case opcodes.close:
      case opcodes.ping:
      case opcodes.pong:
        if ((first & 0x80) === 0) return 'a fragmented control frame'
        return (second & 0x7f) > maxControlPayload ? 'a control frame of more than 125 bytes' : undefined
      default:
        return `unknown opcode ${opcode}`
    }
  }

  #fail(reason: ErrorReason, hint: string): number {
    this.end = { kind: 'violation', reason, hint }
    // Any positive number: the loop checks `end` before the next byte.
    return 1
  }

  /** Completes a partial header. Returns the number of bytes taken from `chunk`, or 0 when it is still incomplete. */
  #completeHeader(chunk: Buffer, at: number): number {
    const header = this.#partialHeader!
    const before = this.#partialLength
    const copied = chunk.copy(header, before, at, Math.min(chunk.length, at + maxHeader - before))
    const headerLength = this.#parseHeader(header, 0, before + copied)
    if (headerLength === 0) return 0
    this.#partialLength = 0
    return headerLength - before
  }

  #savePartialHeader(chunk: Buffer, at: number): void {
    this.#partialHeader ??= Buffer.allocUnsafe(maxHeader)
    this.#partialLength += chunk.copy(this.#partialHeader, this.#partialLength, at)
  }

  #readControl(chunk: Buffer, view: DataView, at: number, run: number): void {
    this.#controlPayload ??= Buffer.allocUnsafe(maxControlPayload)
    this.#unmask(chunk, view, at, run, at)
    this.#controlLength += chunk.copy(this.#controlPayload, this.#controlLength, at, at + run)
    if (this.#left === 0) this.#finishControl()
  }

  #finishControl(): void {
    const opcode = this.#opcode
    const payload = this.#controlPayload?.subarray(0, this.#controlLength) ?? Buffer.alloc(0)
    this.#opcode = opcodes.continuation
    if (opcode === opcodes.ping) this.#control.onPing(payload)
    else if (opcode === opcodes.pong) this.#control.onPong(payload)
    else this.end = readClosePayload(payload)
  }
}

/** The mask after `run` bytes (RFC 6455 §5.3: octet i of the payload takes octet i modulo 4 of the mask). */
function rotate(mask: number, run: number): number {
  const bits = (run & 3) * 8
  return bits === 0 ? mask : (mask >>> bits) | (mask << (32 - bits))
}

/** Parses a close frame's payload (RFC 6455 §5.5.1, §7.4): empty, or a code and a reason in UTF-8. */
function readClosePayload(payload: Buffer): DecoderEnd {
  if (payload.length === 0) return { kind: 'close', code: undefined, reason: '' }
  if (payload.length === 1)
    return { kind: 'violation', reason: 'protocol-error', hint: 'a close frame with half a code' }
  const code = payload.readUInt16BE(0)
  if (!isCloseCode(code))
    return { kind: 'violation', reason: 'protocol-error', hint: `close code ${code} must not be sent` }
  const reason = payload.subarray(2)
  if (!isUtf8(reason)) return { kind: 'violation', reason: 'invalid-utf8', hint: 'in a close frame' }
  return { kind: 'close', code, reason: reason.toString('utf8') }
}

/** Whether an endpoint may send this close code (RFC 6455 §7.4 and the IANA registry up to 1014). */
export function isCloseCode(code: number): boolean {
  return (
    (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) || (code >= 3000 && code <= 4999)
  )
}
