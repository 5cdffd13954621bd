import { createHmac, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { GatewayError } from '../base/errors.js'
import { FairCache } from '../base/fair-cache.js'
import { FairQuota } from '../base/fair-quota.js'
import { anonymous, type Identity, isUserName } from '../base/identity.js'
import { timeLimit } from '../base/time-limit.js'
import type { WebhookConfig } from '../config/access.js'
import { firstProblem, identityFilters } from './identity-rules.js'
import { networkOf } from './limits.js'

/** The JSON that is sent about a connection, without unknown members. */
export interface WebhookRequest {
  readonly transport: 'http' | 'websocket' | 'mqtt'
  readonly address: string
  readonly path?: string | undefined
  readonly origin?: string | undefined
  readonly clientId?: string | undefined
  readonly user?: string | undefined
  readonly password?: string | undefined
  readonly token?: string | undefined
  /** The configured request headers, with names in lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** The JSON of a response with status 200. Unknown keys are refused: they may be misspelled rules. */
const responseSchema = z.strictObject({
  allow: z.boolean(),
  user: z
    .string()
    .refine(isUserName, { error: 'must be a text of 1 to 255 bytes without control characters' })
    .optional(),
  roles: z.array(z.string()).max(1000).default([]),
  publish: identityFilters.optional(),
  subscribe: identityFilters.optional(),
  /** Seconds for which the response to an equal request is cached. */
  ttl: z.number().min(0).max(86_400).default(0),
})

type WebhookResponse = z.output<typeof responseSchema>

export interface WebhookOptions {
  readonly config: WebhookConfig
  readonly now?: () => number
}

const maxCached = 10_000
/** Pending requests. */
const maxPending = 200
/** Pending requests of one address (IPv6: a /64). */
const maxPendingPerAddress = 20
const maxResponseBytes = 65_536

/**
 * Authenticates clients with a web service. Any failure is a refusal: a timeout, a redirect, another status, an invalid response.
 */
export class Webhook {
  readonly #config: WebhookConfig
  readonly #now: () => number
  /** By digest of the request. */
  readonly #cache = new FairCache<{ readonly response: WebhookResponse; readonly until: number }>(maxCached)
  readonly #pending = new Map<string, Promise<WebhookResponse>>()
  readonly #pendingPerAddress = new FairQuota(maxPending)
  readonly #closing = new AbortController()
  /** Keys the digests of requests, which hold passwords. */
  readonly #key = randomBytes(32)

  constructor({ config, now = () => performance.now() }: WebhookOptions) {
    this.#config = config
    this.#now = now
  }

  /**
   * Requests the identity, or takes it from the cache. Equal requests at the same time are sent once.
   *
   * @returns the identity, without a user if the response allows that
   * @throws {GatewayError} `identity-refused`, `identity-unavailable` without a valid response,
   *   `too-many-attempts` if too many requests of its address are pending
   */
  async query(request: WebhookRequest): Promise<Identity> {
    const body = JSON.stringify(request)
    const digest = createHmac('sha256', this.#key).update(body).digest('base64')
    const { allow, user, roles, publish, subscribe } =
      this.#cached(digest) ?? (await this.#requestOnce(digest, body, networkOf(request.address)))
    if (!allow) throw new GatewayError('identity-refused')
    const hasRules = publish !== undefined || subscribe !== undefined
    const rules = hasRules ? { publish: publish ?? [], subscribe: subscribe ?? [] } : undefined
    return { ...anonymous, user, source: 'webhook', roles, rules }
  }

  /** Aborts pending requests. */
  close(): void {
    this.#closing.abort()
  }

  #cached(digest: string): WebhookResponse | undefined {
    const found = this.#cache.get(digest)
    return found !== undefined && found.until > this.#now() ? found.response : undefined
  }

  #requestOnce(digest: string, body: string, network: string): Promise<WebhookResponse> {
    const same = this.#pending.get(digest)
    if (same !== undefined) return same
    if (this.#pending.size >= maxPending) throw unavailable(`${maxPending} requests are pending`)
    const isAddressFull = this.#pendingPerAddress.of(network) >= maxPendingPerAddress
    if (isAddressFull || this.#pendingPerAddress.exceededBy(network, 1))
      throw new GatewayError('too-many-attempts', { retryAfter: 1 })
    this.#pendingPerAddress.take(network, 1)
    const pending = this.#request(body)
      .then(response => this.#addToCache(digest, network, response))
      .finally(() => this.#release(digest, network))
    this.#pending.set(digest, pending)
    return pending
  }

  #release(digest: string, network: string): void {
    this.#pending.delete(digest)
    this.#pendingPerAddress.giveBack(network, 1)
  }

  #addToCache(digest: string, network: string, response: WebhookResponse): WebhookResponse {
    this.#cache.delete(digest)
    if (response.ttl === 0) return response
    this.#cache.set(digest, network, { response, until: this.#now() + response.ttl * 1000 })
    return response
  }

  async #request(body: string): Promise<WebhookResponse> {
    const { url, timeout, secret } = this.#config
    const authorization: Record<string, string> = secret === undefined ? {} : { authorization: `Bearer ${secret}` }
    const limit = timeLimit(timeout, this.#closing.signal)
    try {
      const response = await fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/json', ...authorization },
        body,
        // A redirect would send passwords to another server.
        redirect: 'error',
        signal: limit.signal,
      })
      return await readResponse(response)
    } catch (error) {
      throw error instanceof GatewayError ? error : unavailable(error)
    } finally {
      limit.end()
    }
  }
}

async function readResponse(response: Response): Promise<WebhookResponse> {
  if (response.status !== 200) {
    await response.body?.cancel()
    if (response.status === 401 || response.status === 403) throw new GatewayError('identity-refused')
    throw unavailable(`the webhook answered with status ${response.status}`)
  }
  const result = responseSchema.safeParse(JSON.parse(await readText(response)))
  if (!result.success) throw unavailable(`the webhook's response is invalid: ${firstProblem(result.error)}`)
  return result.data
}

async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.length
    if (size > maxResponseBytes) throw unavailable(`the webhook's response has more than ${maxResponseBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function unavailable(cause: unknown): GatewayError {
  return new GatewayError('identity-unavailable', { cause })
}
