import type { SecureContext } from 'node:tls'
import { pathOf } from '../../http/request-target.js'
import type { WebApp } from '../web-servers.js'

/** Where the CA fetches a response (RFC 8555 §8.3). */
const prefix = '/.well-known/acme-challenge/'

/** Responses to the CA while an order is under way: one for each of its names. */
export class PendingChallenges {
  /** Key authorizations by token. */
  readonly #responses = new Map<string, string>()
  /** Certificates of tls-alpn-01 by name. */
  readonly #contexts = new Map<string, SecureContext>()

  /** Responds to http-01 requests for this token, whatever their host. */
  addResponse(token: string, keyAuthorization: string): void {
    this.#responses.set(token, keyAuthorization)
  }

  /** Has TLS connections of the protocol `acme-tls/1` with this server name get the certificate of `context`. */
  addContext(name: string, context: SecureContext): void {
    this.#contexts.set(name, context)
  }

  /** Forgets all. */
  clear(): void {
    this.#responses.clear()
    this.#contexts.clear()
  }

  /** The response to a request; `undefined` where it is none of the CA for a pending challenge. */
  responseTo({ method, url }: { readonly method?: string | undefined; readonly url?: string | undefined }) {
    if (this.#responses.size === 0 || (method !== 'GET' && method !== 'HEAD')) return undefined
    const path = pathOf(url)
    return path.startsWith(prefix) ? this.#responses.get(path.slice(prefix.length)) : undefined
  }

  /** The certificate of a pending tls-alpn-01 challenge (RFC 8737 §3). */
  contextFor(name: string): SecureContext | undefined {
    return this.#contexts.get(name.toLowerCase())
  }
}

/** An app that responds to http-01 requests before its own rules, redirects and access control. */
export function withChallengeResponses(app: WebApp, challenges: PendingChallenges): WebApp {
  return {
    routing: (request, response) => {
      const body = challenges.responseTo(request)
      if (body === undefined) return app.routing(request, response)
      response.statusCode = 200
      response.setHeader('content-type', 'application/octet-stream')
      response.setHeader('content-length', Buffer.byteLength(body))
      response.setHeader('cache-control', 'no-store')
      response.setHeader('x-content-type-options', 'nosniff')
      response.end(body)
    },
  }
}
