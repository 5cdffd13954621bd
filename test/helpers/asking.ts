import { once } from 'node:events'
import { request as requestHttp } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import { request as requestHttps } from 'node:https'
import type { Readable } from 'node:stream'
import type { Presented } from './handshake.js'

/** Protocols of a request: HTTP/1.1 without and with TLS, and HTTP/2. */
export const versions = ['http', 'https', 'h2'] as const
export type Version = (typeof versions)[number]

/** A request. */
export interface Question {
  readonly method?: string
  /** Includes the query. */
  readonly path: string
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** A response. */
export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** The whole body; of an event stream, which does not end, the first bytes. */
  readonly text: string
}

/** Sends a request with credentials to a gateway, on a separate connection. */
export async function ask(
  urls: { readonly http: string; readonly https: string },
  version: Version,
  { method = 'GET', path, body, headers }: Question,
  { query = '', headers: shown, cert, key, localAddress }: Presented = {},
): Promise<Reply> {
  const target = path.includes('?') ? `${path}${query.replace('?', '&')}` : `${path}${query}`
  const all = { ...headers, ...shown }
  const connection = {
    rejectUnauthorized: false,
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
    ...(localAddress !== undefined && { localAddress }),
  }
  if (version === 'h2') {
    const session = connectHttp2(urls.https, connection)
    try {
      const stream = session.request({ ...lowerCase(all), ':method': method, ':path': target })
      stream.end(body)
      const [answer] = await once(stream, 'response')
      return { status: Number(answer[':status']), headers: answer, text: await textOf(stream, answer['content-type']) }
    } finally {
      session.destroy()
    }
  }
  const request = version === 'http' ? requestHttp : requestHttps
  const asking = request(`${urls[version]}${target}`, { method, headers: all, agent: false, ...connection })
  try {
    asking.end(body)
    const [response] = await once(asking, 'response')
    const text = await textOf(response, response.headers['content-type'])
    return { status: response.statusCode, headers: response.headers, text }
  } finally {
    asking.destroy()
  }
}

async function textOf(body: Readable, type: string | undefined): Promise<string> {
  let text = ''
  for await (const chunk of body) {
    text += chunk
    if (type?.startsWith('text/event-stream') && text.includes('\n\n')) break
  }
  return text
}

function lowerCase(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
}
