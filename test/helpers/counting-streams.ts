import { once } from 'node:events'
import net from 'node:net'

/** Statistics of many event streams, from messages whose payload is a number and the time of publication. */
export interface Tally {
  /** Streams that received a number other than the next one. */
  readonly disordered: number
  /** Streams that ended. */
  readonly ended: number
  /** Messages, of all streams. */
  readonly received: number
  /** Maximum and p99 of the time from publishing to reading, in milliseconds. */
  readonly maxDelay: number
  readonly p99Delay: number
}

const marker = Buffer.from('"payload":"')
const blankLine = Buffer.from('\n\n')
const space = ' '.charCodeAt(0)
const zero = '0'.charCodeAt(0)
const nine = '9'.charCodeAt(0)
/**
 * Interval of reads, in milliseconds. Reading 200,000 events per second one by one would take two cores, which the gateway would
 * lack.
 */
const readInterval = 15
/** Maximum counted delay, in milliseconds. */
const longest = 60_000

/**
 * Many event streams over HTTP/1.1, each on its own socket. Checks that each receives the numbers from 0 on, each once
 * and in order. It parses bytes, so that 200,000 events per second leave a core to the gateway.
 */
export class CountingStreams {
  readonly #sockets: net.Socket[] = []
  readonly #next: number[] = []
  readonly #delays = new Uint32Array(longest + 1)
  readonly #reading = setInterval(() => {
    for (const socket of this.#sockets) socket.resume()
  }, readInterval)
  #disordered = 0
  #ended = 0
  #received = 0
  #maxDelay = 0
  #onReceived: () => void = () => {}

  /** Opens `count` streams at `url`; resolves when all are live. */
  static async open(url: string, count: number): Promise<CountingStreams> {
    const streams = new CountingStreams()
    // All sockets share one read buffer: nothing is stored beyond the call.
    const shared = Buffer.allocUnsafe(256 * 1024)
    const opening = Array.from({ length: count }, (_, index) => streams.#open(new URL(url), index, shared))
    await Promise.all(opening)
    return streams
  }

  /** Statistics so far. */
  get tally(): Tally {
    return {
      disordered: this.#disordered,
      ended: this.#ended,
      received: this.#received,
      maxDelay: this.#maxDelay,
      p99Delay: this.#quantile(0.99),
    }
  }

  /** Resolves when all streams have received `count` messages, or one has ended or lost a message. */
  async received(count: number): Promise<void> {
    const wanted = count * this.#sockets.length
    await new Promise<void>(resolve => {
      this.#onReceived = () => {
        if (this.#received >= wanted || this.#ended > 0 || this.#disordered > 0) resolve()
      }
      this.#onReceived()
    })
  }

  close(): void {
    clearInterval(this.#reading)
    for (const socket of this.#sockets) socket.destroy()
  }

  async #open({ hostname, port, pathname, search }: URL, index: number, shared: Buffer): Promise<void> {
    let rest: Buffer | undefined
    let live: (() => void) | undefined
    const isLive = new Promise<void>(resolve => {
      live = resolve
    })
    const callback = (length: number, bytes: Uint8Array): boolean => {
      const fresh = Buffer.from(bytes.buffer, bytes.byteOffset, length)
      const data = rest ? Buffer.concat([rest, fresh]) : fresh
      const end = data.lastIndexOf(blankLine)
      const whole = end === -1 ? data.subarray(0, 0) : data.subarray(0, end + blankLine.length)
      // Follows the stored events; no header ends like this.
      if (live && whole.includes('id: ')) {
        live()
        live = undefined
      }
      this.#read(index, whole)
      rest = whole.length === data.length ? undefined : Buffer.from(data.subarray(whole.length))
      return false
    }
    const socket = net.connect({ host: hostname, port: Number(port), onread: { buffer: shared, callback } })
    this.#sockets[index] = socket
    this.#next[index] = 0
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#ended++
      this.#onReceived()
    })
    await once(socket, 'connect')
    socket.write(`GET ${pathname}${search} HTTP/1.1\r\nHost: ${hostname}:${port}\r\n\r\n`)
    await isLive
  }

  #read(index: number, data: Buffer): void {
    const now = Date.now()
    let got = 0
    for (let at = data.indexOf(marker); at !== -1; at = data.indexOf(marker, at)) {
      at += marker.length
      let number = 0
      for (; data[at] !== space; at++) number = number * 10 + (data[at] ?? 0) - zero
      let time = 0
      for (at++; isDigit(data[at]); at++) time = time * 10 + (data[at] ?? 0) - zero
      if (number !== this.#next[index]) this.#disordered++
      this.#next[index] = number + 1
      const delay = Math.max(0, now - time)
      if (delay > this.#maxDelay) this.#maxDelay = delay
      const bucket = Math.min(delay, longest)
      this.#delays[bucket] = (this.#delays[bucket] ?? 0) + 1
      got++
    }
    this.#received += got
    if (got > 0) this.#onReceived()
  }

  #quantile(part: number): number {
    let left = this.#received * part
    for (const [delay, count] of this.#delays.entries()) {
      left -= count
      if (left <= 0) return delay
    }
    return longest
  }
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= zero && byte <= nine
}
