/** An event as an EventSource dispatches it. */
export interface Dispatched {
  readonly type: string
  readonly data: string
  readonly lastEventId: string
}

/**
 * Parses an event stream by the steps of the HTML Living Standard §9.2.6, independently of the gateway's encoder.
 * Chunks may have any boundaries.
 */
export class EventStreamParser {
  readonly events: Dispatched[] = []
  /** Called for each event. */
  onEvent: (event: Dispatched) => void = () => {}
  /** Blocks without data, on which several clients fail, also with a comment in them. */
  emptyBlocks = 0
  /** The `Last-Event-ID` of a reconnect. */
  lastEventId = ''
  retry: number | undefined
  comments = 0
  readonly #decoder = new TextDecoder('utf-8')
  #buffer = ''
  /** Whether the last chunk ended in CR, so that a LF at the start of the next one belongs to it. */
  #afterCarriageReturn = false
  #data = ''
  #type = ''
  #id = ''

  push(bytes: Uint8Array): void {
    this.#buffer += this.#decoder.decode(bytes, { stream: true })
    for (;;) {
      if (this.#afterCarriageReturn && this.#buffer.startsWith('\n')) this.#buffer = this.#buffer.slice(1)
      if (this.#buffer !== '') this.#afterCarriageReturn = false
      const end = this.#buffer.search(/[\r\n]/)
      if (end === -1) return
      const line = this.#buffer.slice(0, end)
      this.#afterCarriageReturn = this.#buffer[end] === '\r'
      this.#buffer = this.#buffer.slice(end + 1)
      this.#line(line)
    }
  }

  #line(line: string): void {
    if (line === '') return this.#dispatch()
    if (line.startsWith(':')) {
      this.comments++
      return
    }
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const rest = colon === -1 ? '' : line.slice(colon + 1)
    this.#field(field, rest.startsWith(' ') ? rest.slice(1) : rest)
  }

  #field(field: string, value: string): void {
    if (field === 'event') this.#type = value
    else if (field === 'data') this.#data += `${value}\n`
    else if (field === 'id' && !value.includes('\0')) this.#id = value
    else if (field === 'retry' && /^\d+$/.test(value)) this.retry = Number(value)
  }

  #dispatch(): void {
    this.lastEventId = this.#id
    const [data, type] = [this.#data, this.#type]
    this.#data = ''
    this.#type = ''
    if (data === '') {
      this.emptyBlocks++
      return
    }
    const { lastEventId } = this
    const event = { type: type === '' ? 'message' : type, data: data.slice(0, -1), lastEventId }
    this.events.push(event)
    this.onEvent(event)
  }
}
