/*
 * The frames of a WebSocket server: whole and unmasked (RFC 6455 §5.2).
 */

export const opcodes = { continuation: 0x0, text: 0x1, binary: 0x2, close: 0x8, ping: 0x9, pong: 0xa } as const

/** The kinds of frame that a server sends. */
export type FrameKind = Exclude<keyof typeof opcodes, 'continuation'>

/** Bytes of a control frame's payload (RFC 6455 §5.5). */
export const maxControlPayload = 125

/** A frame with a copy of `payload`; for `text` it must be UTF-8. */
export function encodeFrame(kind: FrameKind, payload: Uint8Array): Buffer {
  const headerLength = headerLengthOf(payload.length)
  const frame = Buffer.allocUnsafe(headerLength + payload.length)
  writeHeader(frame, kind, payload.length)
  frame.set(payload, headerLength)
  return frame
}

export function encodeText(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const headerLength = headerLengthOf(length)
  const frame = Buffer.allocUnsafe(headerLength + length)
  writeHeader(frame, 'text', length)
  frame.write(text, headerLength)
  return frame
}

/**
 * A close frame.
 *
 * @param code a code that may be sent, or `undefined` for a frame without a code
 * @param reason cut as by `closeReason`
 */
export function encodeClose(code: number | undefined, reason: string): Buffer {
  if (code === undefined) return encodeFrame('close', Buffer.alloc(0))
  return encodeFrame('close', Buffer.concat([Buffer.from([code >>> 8, code & 0xff]), closeReason(reason)]))
}

/** The reason of a close frame, cut to the 123 bytes that it has room for, at a character's boundary. */
export function closeReason(text: string): Buffer {
  const bytes = Buffer.alloc(maxControlPayload - 2)
  // `write` never cuts a character in two.
  return bytes.subarray(0, bytes.write(text))
}

function headerLengthOf(payloadLength: number): number {
  return payloadLength < 126 ? 2 : payloadLength < 65_536 ? 4 : 10
}

function writeHeader(frame: Buffer, kind: FrameKind, payloadLength: number): void {
  frame[0] = 0x80 | opcodes[kind]
  if (payloadLength < 126) {
    frame[1] = payloadLength
  } else if (payloadLength < 65_536) {
    frame[1] = 126
    frame[2] = payloadLength >>> 8
    frame[3] = payloadLength & 0xff
  } else {
    frame[1] = 127
    frame.writeUInt32BE(Math.floor(payloadLength / 2 ** 32), 2)
    frame.writeUInt32BE(payloadLength >>> 0, 6)
  }
}
