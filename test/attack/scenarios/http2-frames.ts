/*
 * Frames of HTTP/2 (RFC 9113 §4.1), byte for byte, for clients that do what no library does.
 */

const types = { data: 0, headers: 1, priority: 2, reset: 3, settings: 4, ping: 6, windowUpdate: 8, continuation: 9 }

export const flags = { endStream: 1, endHeaders: 4 }

/** The connection preface (RFC 9113 §3.4) with empty SETTINGS. */
export const preface = (): Buffer => Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame('settings')])

export function frame(type: keyof typeof types, flag = 0, stream = 0, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = types[type]
  head[4] = flag
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A header block (RFC 7541) for a GET of `path`, with literals that are not indexed. */
export function getBlock(path: string): Buffer {
  const text = (value: string): number[] => [value.length, ...Buffer.from(value)]
  return Buffer.from([0x82, 0x87, 0x04, ...text(path), 0x01, ...text('localhost')])
}

/** A complete GET. */
export function get(stream: number, path: string): Buffer {
  return frame('headers', flags.endStream | flags.endHeaders, stream, getBlock(path))
}

/** RST_STREAM with CANCEL. */
export function reset(stream: number): Buffer {
  return frame('reset', 0, stream, Buffer.from([0, 0, 0, 8]))
}
