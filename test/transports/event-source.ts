import type { IncomingHttpHeaders } from 'node:http'
import { request as requestPlainly } from 'node:http'
import type { ClientHttp2Session, IncomingHttpHeaders as Http2Headers } from 'node:http2'
import { request as requestSecurely } from 'node:https'
import type { Readable } from 'node:stream'
import { eventually } from '../helpers/wait.js'

/** An event as an EventSource hands it to a page. */
export interface Dispatched {
  readonly type: string
  readonly data: string
  readonly lastEventId: string
}

/**
 * Reads an event stream as the HTML Living Standard §9.2.6 says, step by step; it knows nothing of how ours is written.
 * Bytes may come in any pieces.
 */
export class EventStreamParser {
  readonly events: Dispatched[] = []
  /** What a client would come back with. */
  lastEventId = ''
  retry: number | undefined
  comments = 0
  readonly #decoder = new TextDecoder('utf-8')
  #buffer = ''
  /** The last piece ended in a CR, and a LF at the start of the next one belongs to it. */
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
    if (data === '') return
    this.events.push({ type: type === '' ? 'message' : type, data: data.slice(0, -1), lastEventId: this.lastEventId })
  }
}

/** A stream that is being read, or was. */
export class TestSource {
  readonly parser = new EventStreamParser()
  readonly status: number
  readonly headers: IncomingHttpHeaders | Http2Headers
  ended = false
  readonly #body: Readable

  constructor(status: number, headers: IncomingHttpHeaders | Http2Headers, body: Readable) {
    this.status = status
    this.headers = headers
    this.#body = body
    body.on('data', (bytes: Buffer) => this.parser.push(bytes))
    body.on('error', () => {})
    body.on('close', () => {
      this.ended = true
    })
  }

  /** Those of a type, as JSON. */
  of(type: string): Record<string, unknown>[] {
    return this.parser.events.filter(event => event.type === type).map(({ data }) => JSON.parse(data))
  }

  /** The payloads of enveloped events. */
  payloads(): unknown[] {
    return this.of('message').map(({ payload }) => payload)
  }

  /** Resolves when so many messages have come. */
  async messages(count: number): Promise<void> {
    await eventually(() => this.parser.events.filter(({ type }) => type === 'message').length >= count)
  }

  /** Resolves when it has all that was there: when it has a place to come back to. */
  async live(): Promise<void> {
    await eventually(() => this.parser.lastEventId !== '')
  }

  async end(): Promise<void> {
    await eventually(() => this.ended)
  }

  /** Reads no more. */
  pause(): void {
    this.#body.pause()
  }

  resume(): void {
    this.#body.resume()
  }

  /** Goes away. */
  leave(): void {
    this.#body.destroy()
  }
}

/** Opens a stream over HTTP/1.1, also with TLS. */
export async function openSource(url: string, headers: Record<string, string> = {}): Promise<TestSource> {
  return new Promise((resolve, reject) => {
    const request = url.startsWith('https:') ? requestSecurely : requestPlainly
    request(url, { headers, agent: false, rejectUnauthorized: false }, response =>
      resolve(new TestSource(response.statusCode ?? 0, response.headers, response)),
    )
      .on('error', reject)
      .end()
  })
}

/** Opens a stream over HTTP/2. */
export async function openSource2(
  session: ClientHttp2Session,
  path: string,
  headers: Record<string, string> = {},
): Promise<TestSource> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ...headers, ':path': path })
    stream.on('error', reject)
    stream.on('response', headers => resolve(new TestSource(headers[':status'] ?? 0, headers, stream)))
  })
}
