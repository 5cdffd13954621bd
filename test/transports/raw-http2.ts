import { once } from 'node:events'
import { connect, type TLSSocket } from 'node:tls'

/*
 * A client of HTTP/2 that does nothing by itself: it reads, and never gives the other side more room (RFC 9113 §6.9).
 */

/** Types of frames (RFC 9113 §6). */
const frames = { headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7 } as const

const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
const headLength = 9
const initialWindowSize = 4
const [endStream, endHeaders] = [0x1, 0x4]

function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(headLength)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** Fields as literals that are not indexed, and not compressed (RFC 7541 §6.2.2). */
function fields(all: Readonly<Record<string, string>>): Buffer {
  const text = (value: string): Buffer => {
    const bytes = Buffer.from(value)
    if (bytes.length > 126) throw new RangeError('a longer text has a length of more bytes')
    return Buffer.concat([Buffer.from([bytes.length]), bytes])
  }
  return Buffer.concat(Object.entries(all).flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]))
}

export class RawHttp2 {
  readonly socket: TLSSocket
  /** Whether the other side takes no more streams. */
  isSentAway = false
  #streams = 0
  #unread = Buffer.alloc(0)

  private constructor(socket: TLSSocket) {
    this.socket = socket
    socket.on('error', () => {})
    socket.on('data', (bytes: Buffer) => this.#read(bytes))
  }

  /** @param window that each of its streams has for what comes, in bytes; it stays so */
  static async open(url: string, window: number): Promise<RawHttp2> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port), ALPNProtocols: ['h2'], rejectUnauthorized: false })
    const client = new RawHttp2(socket)
    await once(socket, 'secureConnect')
    socket.write(preface)
    client.settings(window)
    return client
  }

  #read(bytes: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, bytes])
    for (;;) {
      const end = this.#unread.length < headLength ? headLength : headLength + this.#unread.readUIntBE(0, 3)
      if (this.#unread.length < end) return
      this.isSentAway ||= this.#unread[3] === frames.goAway
      this.#unread = this.#unread.subarray(end)
    }
  }

  settings(window: number): void {
    const setting = Buffer.alloc(6)
    setting.writeUInt16BE(initialWindowSize, 0)
    setting.writeUInt32BE(window, 2)
    this.socket.write(frame(frames.settings, 0, 0, setting))
  }

  /** Asks for a path. @returns the number of the stream */
  get(path: string): number {
    const stream = 2 * this.#streams++ + 1
    const head = fields({ ':method': 'GET', ':scheme': 'https', ':authority': 'localhost', ':path': path })
    this.socket.write(frame(frames.headers, endStream | endHeaders, stream, head))
    return stream
  }

  /** Resets a stream, with an error code (RFC 9113 §7). */
  reset(stream: number, code: number): void {
    const payload = Buffer.alloc(4)
    payload.writeUInt32BE(code)
    this.socket.write(frame(frames.reset, 0, stream, payload))
  }

  ping(): void {
    this.socket.write(frame(frames.ping, 0, 0, Buffer.alloc(8)))
  }
}
