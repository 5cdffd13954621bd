import type { Writable } from 'node:stream'

/** Aedes' answer to a CONNECT. */
export interface AedesConnack {
  readonly isSessionPresent: boolean
  /** A reason code, or before MQTT 5 a return code. */
  readonly code: number
}

/**
 * Replaces the CONNACK that Aedes writes: before MQTT 3.1.1 its session-present flag is reserved, and in MQTT 5 it has properties that Aedes
 * does not know, and says that there are no shared subscriptions.
 *
 * @param stream nothing has been written to it yet
 * @param replace returns the CONNACK
 */
export function replaceConnack(stream: Writable, replace: (connack: AedesConnack) => Buffer): void {
  const write = stream.write.bind(stream)
  let written = Buffer.alloc(0)
  stream.write = (chunk: Buffer | string): boolean => {
    written = Buffer.concat([written, Buffer.from(chunk as string)])
    const connack = parse(written)
    if (!connack) return true
    Reflect.deleteProperty(stream, 'write')
    return write(replace(connack))
  }
}

/** Parses a complete CONNACK: its length, flags and code. */
function parse(bytes: Buffer): AedesConnack | undefined {
  let [at, length] = [1, 0]
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined) return undefined
    length += (byte & 0x7f) << shift
    if (byte < 0x80) break
  }
  if (bytes.length < at + length) return undefined
  return { isSessionPresent: bytes[at] === 1, code: bytes[at + 1] ?? 0 }
}
