/*
 * The standard input of an event listener of supervisord: a line of `key:value` pairs, then a body of `len` characters
 * (Supervisor 4, “Event Listener Notification Protocol”).
 */

/** One event of supervisord. */
export interface ListenerEvent {
  /** The pairs of its line: `ver`, `server`, `serial`, `pool`, `poolserial`, `eventname`, `len`. */
  readonly header: ReadonlyMap<string, string>
  readonly eventname: string
  /** `undefined` if it is larger than `maxBody`. */
  readonly body: string | undefined
}

/** The input violates the protocol; the start of the next event is unknown. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** Bytes of a line; supervisord's have some 150. */
const maxLine = 8192
/** Bytes of a body; larger ones are skipped. A process state has some 100 bytes, a log line may have a megabyte. */
const maxBody = 65_536

const newline = 0x0a

/** Parses a stream into events, whatever its chunks. */
export class EventReader {
  #line: Buffer = Buffer.alloc(0)
  #event:
    | { readonly header: ReadonlyMap<string, string>; readonly eventname: string; readonly length: number }
    | undefined
  #body: Buffer[] = []
  #bodyBytes = 0
  /** Characters of the body so far, and missing bytes of the last one. */
  #characters = 0
  #openBytes = 0

  /** @throws {ProtocolError} */
  push(chunk: Buffer): ListenerEvent[] {
    const events: ListenerEvent[] = []
    let rest = chunk
    while (rest.length > 0) {
      rest = this.#event ? this.#readBody(rest) : this.#readLine(rest)
      const event = this.#complete()
      if (event) events.push(event)
    }
    return events
  }

  #readLine(chunk: Buffer): Buffer {
    const end = chunk.indexOf(newline)
    const part = end === -1 ? chunk : chunk.subarray(0, end)
    this.#line = Buffer.concat([this.#line, part])
    if (this.#line.length > maxLine) throw new ProtocolError(`a line has more than ${maxLine} bytes`)
    if (end === -1) return Buffer.alloc(0)
    const line = this.#line.toString()
    this.#line = Buffer.alloc(0)
    const header = parsePairs(line)
    const eventname = header.get('eventname') ?? ''
    const length = header.get('len') ?? ''
    if (eventname === '' || !/^\d{1,15}$/.test(length)) {
      throw new ProtocolError(`a line is not an event: ${JSON.stringify(line.slice(0, 200))}`)
    }
    this.#event = { header, eventname, length: Number(length) }
    return chunk.subarray(end + 1)
  }

  /**
   * supervisord on Python 3 counts the characters of what it sends as UTF-8 (`len(payload)` of a `str`), while its
   * manual says bytes.
   */
  #readBody(chunk: Buffer): Buffer {
    const length = this.#event?.length ?? 0
    let at = 0
    while (at < chunk.length && (this.#characters < length || this.#openBytes > 0)) {
      const byte = chunk[at] ?? 0
      if (this.#openBytes > 0 && (byte & 0xc0) === 0x80) this.#openBytes--
      else if (this.#characters < length) {
        this.#characters++
        this.#openBytes = byte < 0xc0 || byte >= 0xf5 ? 0 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3
      } else {
        this.#openBytes = 0
        break
      }
      at++
    }
    this.#bodyBytes += at
    // A copy, so that the chunk is not retained.
    if (this.#bodyBytes <= maxBody) this.#body.push(Buffer.from(chunk.subarray(0, at)))
    else this.#body = []
    return chunk.subarray(at)
  }

  #complete(): ListenerEvent | undefined {
    const event = this.#event
    if (!event || this.#characters < event.length || this.#openBytes > 0) return undefined
    const body = this.#bodyBytes <= maxBody ? Buffer.concat(this.#body).toString() : undefined
    this.#event = undefined
    this.#body = []
    this.#bodyBytes = 0
    this.#characters = 0
    return { header: event.header, eventname: event.eventname, body }
  }
}

/** Reads `key:value key:value`. A value may have colons, and spaces where no pair begins after them. */
export function parsePairs(text: string): Map<string, string> {
  const pairs = new Map<string, string>()
  let last: string | undefined
  for (const token of text.split(' ')) {
    const colon = token.indexOf(':')
    if (colon > 0) {
      last = token.slice(0, colon)
      pairs.set(last, token.slice(colon + 1))
    } else if (last !== undefined) pairs.set(last, `${pairs.get(last)} ${token}`)
  }
  return pairs
}
