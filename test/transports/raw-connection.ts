import { once } from 'node:events'
import type { Socket } from 'node:net'

/** An answer as it came. */
export interface RawAnswer {
  readonly status: number
  /** By their names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** A connection of HTTP/1.1 on which every byte is written by hand, and answers are read one after the other. */
export class RawConnection {
  readonly socket: Socket
  #unread = ''
  #more: (() => void) | undefined

  constructor(socket: Socket) {
    this.socket = socket
    // What is written apart comes apart.
    socket.setNoDelay(true)
    socket.setEncoding('latin1')
    socket.on('data', text => {
      this.#unread += text
      this.#more?.()
    })
    socket.on('close', () => this.#more?.())
  }

  write(text: string): void {
    this.socket.write(text, 'latin1')
  }

  /** What `text` is answered with. */
  ask(text: string): Promise<RawAnswer> {
    this.write(text)
    return this.next()
  }

  /** The next answer; rejects where the connection is closed before it is complete. */
  async next(): Promise<RawAnswer> {
    const head = await this.#until(() => this.#unread.indexOf('\r\n\r\n') + 4, 4)
    const [line = '', ...lines] = head.slice(0, -4).split('\r\n')
    const headers: Record<string, string> = {}
    for (const header of lines) {
      const colon = header.indexOf(':')
      headers[header.slice(0, colon).toLowerCase()] = header.slice(colon + 1).trim()
    }
    const status = Number(line.split(' ')[1])
    const body = headers['transfer-encoding'] === 'chunked' ? await this.#chunks() : await this.#sized(headers)
    return { status, headers, body: Buffer.from(body, 'latin1').toString() }
  }

  #sized(headers: Record<string, string>): Promise<string> {
    const length = Number(headers['content-length'] ?? 0)
    return this.#until(() => (this.#unread.length >= length ? length : -1), 0)
  }

  async #chunks(): Promise<string> {
    let body = ''
    for (;;) {
      const line = await this.#until(() => this.#unread.indexOf('\r\n') + 2, 2)
      const length = Number.parseInt(line, 16)
      const end = length + 2
      const chunk = await this.#until(() => (this.#unread.length >= end ? end : -1), 0)
      if (length === 0) return body
      body += chunk.slice(0, length)
    }
  }

  /** Takes what is before the place that `end` finds, when that is at least `least`. */
  async #until(end: () => number, least: number): Promise<string> {
    for (;;) {
      const at = end()
      if (at >= least) {
        const text = this.#unread.slice(0, at)
        this.#unread = this.#unread.slice(at)
        return text
      }
      if (this.socket.destroyed) throw new Error(`closed after ${JSON.stringify(this.#unread)}`)
      await new Promise<void>(resolve => {
        this.#more = resolve
      })
    }
  }
}

/** A connection that is open. */
export async function openRaw(socket: Socket): Promise<RawConnection> {
  await once(socket, 'connect')
  return new RawConnection(socket)
}
