import type { IncomingHttpHeaders } from 'node:http'
import { request as requestPlainly } from 'node:http'
import type { ClientHttp2Session, IncomingHttpHeaders as Http2Headers } from 'node:http2'
import { request as requestSecurely } from 'node:https'
import type { Readable } from 'node:stream'
import { EventStreamParser } from '../helpers/sse-parser.js'
import { eventually } from '../helpers/wait.js'

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
