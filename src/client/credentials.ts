import type { ConnectOptions } from './api.js'
import { Failure, failureOfResponse } from './failure.js'

/** Query parameters: lists are repeated, `undefined` is left out. */
export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>

type Secret = ConnectOptions['token'] | ConnectOptions['ticket']

/** Sends requests with the page's credentials. */
export interface Requester {
  /** Sends an HTTP request. Rejects with a `Failure` for any other status than success. */
  fetch(path: string, query: Query, init?: RequestInit & { headers?: Record<string, string> }): Promise<Response>
  /** Sends a request and parses the JSON of its response. */
  json<T>(...request: Parameters<Requester['fetch']>): Promise<T>
  /** The URL of a WebSocket, which cannot send headers: a token is exchanged for a ticket. */
  socketUrl(path: string, query: Query): Promise<URL>
}

export function createRequester(base: URL, { token, ticket }: ConnectOptions): Requester {
  const send: Requester['fetch'] = async (path, query, init) => {
    const url = urlOf(base, path, { ...query, ticket: token ? undefined : await get(ticket) })
    const headers = { ...init?.headers, ...(token && { authorization: `Bearer ${await get(token)}` }) }
    const response = await fetch(url, { ...init, headers })
    if (response.ok) return response
    throw await failureOfResponse(response)
  }
  const json: Requester['json'] = async (...request) => (await send(...request)).json()
  return {
    fetch: send,
    json,
    socketUrl: async (path, query) => {
      const issued = token ? await json<{ ticket: string }>('v1/tickets', {}, { method: 'POST' }) : undefined
      const url = urlOf(base, path, { ...query, ticket: issued ? issued.ticket : await get(ticket) })
      url.protocol = url.protocol.replace('http', 'ws')
      return url
    },
  }
}

async function get(secret: Secret): Promise<string | undefined> {
  try {
    return typeof secret === 'function' ? await secret() : secret
  } catch (cause) {
    throw new Failure('busy', 'no-credentials', { cause })
  }
}

function urlOf(base: URL, path: string, query: Query): URL {
  const url = new URL(path, base)
  for (const [name, values] of Object.entries(query)) {
    for (const value of [values].flat()) if (value !== undefined) url.searchParams.append(name, `${value}`)
  }
  return url
}
