/** A message of an event stream. */
export interface StreamMessage {
  readonly event: string
  readonly data: string
  /** The last event id at that point: what a client would come back with. */
  readonly lastEventId: string
}

/**
 * Reads an event stream as the HTML standard says (§9.2.6, “Interpreting an event stream”): what a browser makes of it.
 * Written from the standard, and not from what the gateway writes.
 */
export class SseParser {
  lastEventId = ''
  retry: number | undefined
  readonly comments: string[] = []
  /** Called for each block that moves the last event id and has no data. */
  onPlace: (id: string) => void = () => {}
  readonly #onMessage: (message: StreamMessage) => void
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  #started = false
  #rest = ''
  #data: string[] = []
  #event = ''
  #idBuffer = ''
  #named = false

  constructor(onMessage: (message: StreamMessage) => void) {
    this.#onMessage = onMessage
  }

  push(chunk: Uint8Array): void {
    let text = this.#rest + this.#decoder.decode(chunk, { stream: true })
    if (!this.#started && text.length > 0) {
      this.#started = true
      if (text.startsWith('\uFEFF')) text = text.slice(1)
    }
    let start = 0
    for (;;) {
      const end = text.slice(start).search(/[\r\n]/)
      if (end === -1) break
      const at = start + end
      // A CR at the end may be half of a CRLF.
      if (text[at] === '\r' && at + 1 === text.length) break
      this.#line(text.slice(start, at))
      start = at + (text.startsWith('\r\n', at) ? 2 : 1)
    }
    this.#rest = text.slice(start)
  }

  #line(line: string): void {
    if (line === '') {
      this.#dispatch()
      return
    }
    const colon = line.indexOf(':')
    if (colon === 0) {
      this.comments.push(line.slice(1))
      return
    }
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'event') this.#event = value
    else if (field === 'data') this.#data.push(value)
    else if (field === 'id' && !value.includes('\0')) {
      this.#idBuffer = value
      this.#named = true
    }
    if (field === 'retry' && /^[0-9]+$/.test(value)) this.retry = Number(value)
  }

  #dispatch(): void {
    this.lastEventId = this.#idBuffer
    const [event, data] = [this.#event, this.#data]
    this.#event = ''
    this.#data = []
    const named = this.#named
    this.#named = false
    if (data.length === 0) {
      if (named) this.onPlace(this.lastEventId)
      return
    }
    this.#onMessage({ event: event === '' ? 'message' : event, data: data.join('\n'), lastEventId: this.lastEventId })
  }
}
