import type { Writable } from 'node:stream'

/** Position of the session-present flag among the bytes of CONNACK (MQTT 3.1.1 §3.2.2.2). */
const flagPosition = 2

/**
 * Clears the session-present flag of the CONNACK that is written next: MQTT 3.1 reserves the byte, and Aedes has the flag in it for all.
 *
 * @param stream nothing has been written to it yet
 */
export function clearSessionPresent(stream: Writable): void {
  const write = stream.write.bind(stream)
  let position = 0
  stream.write = (chunk: Buffer): boolean => {
    const at = flagPosition - position
    position += chunk.length
    if (at >= chunk.length) return write(chunk)
    Reflect.deleteProperty(stream, 'write')
    // Aedes' encoder shares its buffers between connections.
    const cleared = Buffer.from(chunk)
    cleared[at] = 0
    return write(cleared)
  }
}
