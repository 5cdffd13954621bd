/*
 * Frames of a server: whole, and not masked (RFC 6455 §5.2).
 */

/** FIN, and the opcodes of text and of bytes. */
const [wholeText, wholeBinary] = [0x81, 0x82]

/** A message as text. */
export function textFrame(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const frame = headed(wholeText, length)
  frame.write(text, frame.length - length)
  return frame
}

/** A message as it is: as text, which it must be in UTF-8, or as bytes. */
export function payloadFrame(payload: Buffer, kind: 'text' | 'binary'): Buffer {
  const frame = headed(kind === 'text' ? wholeText : wholeBinary, payload.length)
  payload.copy(frame, frame.length - payload.length)
  return frame
}

/** A frame with its head, and room for `length` bytes. */
function headed(first: number, length: number): Buffer {
  const start = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(start + length)
  frame[0] = first
  if (start === 2) frame[1] = length
  else if (start === 4) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeBigUInt64BE(BigInt(length), 2)
  }
  return frame
}
