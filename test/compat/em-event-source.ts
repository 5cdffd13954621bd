import { EventEmitter, once } from 'node:events'
import { type ClientRequest, request } from 'node:http'

/** An event as such a client hands it to its program. */
export interface EmMessage {
  readonly id: string
  readonly data: string
}

export interface EmOptions {
  readonly headers?: Readonly<Record<string, string>>
  /** Of the silence after which it gives up, in milliseconds. Default: a minute */
  readonly inactivity?: number
  /** How much faster it comes back than it is told to. Default: 1 */
  readonly hurry?: number
}

/**
 * An EventSource for Ruby programs, as em-eventsource behaves: it cuts what comes at empty lines, takes a block's lines for
 * what they begin with, joins the lines of data without the space around them, comes back after a whole number of seconds
 * when a stream ends, and closes for good on any answer but 200 and an event stream, and after a minute of silence.
 *
 * Emits `open`, `message` (an `EmMessage`), `named` (an event's name), `lost` when a stream has ended, and `closed`.
 */
export class EmEventSource extends EventEmitter {
  readonly messages: EmMessage[] = []
  lastEventId = ''
  /** In milliseconds. */
  retry = 3000
  /** Why it has closed for good. */
  reason: string | undefined
  streams = 0
  readonly #url: string
  readonly #options: EmOptions
  #request: ClientRequest | undefined
  #buffer = ''
  #silence: NodeJS.Timeout | undefined
  #return: NodeJS.Timeout | undefined

  constructor(url: string, options: EmOptions = {}) {
    super()
    this.#url = url
    this.#options = options
    this.#connect()
  }

  #connect(): void {
    this.#buffer = ''
    const { headers = {} } = this.#options
    const given = this.lastEventId === '' ? {} : { 'Last-Event-Id': this.lastEventId }
    const asked = { accept: 'text/event-stream', 'cache-control': 'no-cache', ...headers, ...given }
    this.#request = request(this.#url, { headers: asked })
    this.#alive()
    this.#request.on('error', () => this.#comeBack())
    this.#request.on('response', response => {
      if (response.statusCode !== 200) return this.close(`answered ${response.statusCode}`)
      if (!/^text\/event-stream/.test(response.headers['content-type'] ?? '')) return this.close('no event stream')
      this.streams++
      this.emit('open', response.headers)
      response.setEncoding('utf8')
      response.on('data', (text: string) => this.#take(text))
      response.on('error', () => {})
      response.on('close', () => this.#comeBack())
    })
    this.#request.end()
  }

  #alive(): void {
    clearTimeout(this.#silence)
    this.#silence = setTimeout(() => this.close('silence'), this.#options.inactivity ?? 60_000)
  }

  #take(text: string): void {
    this.#alive()
    this.#buffer += text
    const blocks = this.#buffer.split('\n\n')
    this.#buffer = blocks.pop() ?? ''
    for (const block of blocks) this.#block(block)
  }

  #block(block: string): void {
    let [data, name]: [string[], string | undefined] = [[], undefined]
    for (const line of block.split('\n')) {
      const [, field, value = ''] = /^(data|id|event|retry):(.+)$/.exec(line) ?? []
      if (field === 'data') data = [...data, value.trim()]
      else if (field === 'id') this.lastEventId = value.trim()
      else if (field === 'event') name = value.trim()
      else if (field === 'retry') this.retry = Number(value)
    }
    if (data.length === 0) return
    if (name !== undefined) {
      this.emit('named', name)
      return
    }
    const message = { id: this.lastEventId, data: data.join('\n') }
    this.messages.push(message)
    this.emit('message', message)
  }

  #comeBack(): void {
    if (this.reason !== undefined || this.#return) return
    clearTimeout(this.#silence)
    const seconds = Math.floor(this.retry / 1000)
    this.#return = setTimeout(
      () => {
        this.#return = undefined
        this.#connect()
      },
      (seconds * 1000) / (this.#options.hurry ?? 1),
    )
    this.emit('lost')
  }

  close(reason = 'asked to'): void {
    if (this.reason !== undefined) return
    this.reason = reason
    clearTimeout(this.#silence)
    clearTimeout(this.#return)
    this.#request?.destroy()
    this.emit('closed', reason)
  }

  /** Resolves with its messages, once there are so many. */
  async got(count: number): Promise<readonly EmMessage[]> {
    while (this.messages.length < count) {
      if (this.reason !== undefined) throw new Error(`closed: ${this.reason}`)
      await once(this, 'message')
    }
    return this.messages
  }
}
