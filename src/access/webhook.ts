import { createHmac, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { GatewayError } from '../base/errors.js'
import { FairCache } from '../base/fair-cache.js'
import { FairQuota } from '../base/fair-quota.js'
import { anonymous, type Identity, isUserName } from '../base/identity.js'
import type { WebhookConfig } from '../config/access.js'
import { networkOf } from './limits.js'
import { firstProblem, ownFilters } from './own-rules.js'

/** What is known of a connection: the JSON that is sent. What is not known is left out. */
export interface WebhookQuestion {
  readonly transport: 'http' | 'websocket' | 'mqtt'
  readonly address: string
  readonly path?: string | undefined
  readonly origin?: string | undefined
  readonly clientId?: string | undefined
  readonly user?: string | undefined
  readonly password?: string | undefined
  readonly token?: string | undefined
  /** The request's headers that the configuration names, in lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** The answer, with status 200. Unknown keys are refused: a rule with a typing error would be no rule. */
const answerForm = z.strictObject({
  allow: z.boolean(),
  user: z
    .string()
    .refine(isUserName, { error: 'must be a text of 1 to 255 bytes without control characters' })
    .optional(),
  roles: z.array(z.string()).max(1000).default([]),
  publish: ownFilters.optional(),
  subscribe: ownFilters.optional(),
  /** Seconds for which the same question has the same answer. */
  ttl: z.number().min(0).max(86_400).default(0),
})

type Answer = z.output<typeof answerForm>

export interface WebhookOptions {
  readonly config: WebhookConfig
  readonly now?: () => number
}

const maxRemembered = 10_000
/** Questions that wait for their answer; beyond, nobody can be asked. */
const maxAsking = 200
/** The same of one address (IPv6: a /64), so that none takes the places of all. */
const maxAskingPerAddress = 20
const longestAnswer = 65_536

/**
 * Asks a web service who somebody is and what they may do. Whatever goes wrong is a refusal: no answer in time, a
 * redirect, another status, an answer that is not understood.
 */
export class Webhook {
  readonly #config: WebhookConfig
  readonly #now: () => number
  /** By `#digest`, the oldest first. */
  readonly #remembered = new FairCache<{ readonly answer: Answer; readonly until: number }>(maxRemembered)
  readonly #asking = new Map<string, Promise<Answer>>()
  readonly #askingPerAddress = new FairQuota(maxAsking)
  readonly #closing = new AbortController()
  /** Questions hold passwords; what they are remembered by does not. */
  readonly #key = randomBytes(32)

  constructor({ config, now = () => performance.now() }: WebhookOptions) {
    this.#config = config
    this.#now = now
  }

  /**
   * Asks, or remembers. Equal questions at the same time are asked once.
   *
   * @returns who it is; somebody without a name where the answer allows that
   * @throws {Ending} `identity-refused`, `identity-unavailable` where there is no valid answer,
   *   `too-many-attempts` where too many questions of its address wait
   */
  async ask(question: WebhookQuestion): Promise<Identity> {
    const body = JSON.stringify(question)
    const digest = createHmac('sha256', this.#key).update(body).digest('base64')
    const { allow, user, roles, publish, subscribe } =
      this.#recall(digest) ?? (await this.#join(digest, body, networkOf(question.address)))
    if (!allow) throw new GatewayError('identity-refused')
    const brings = publish !== undefined || subscribe !== undefined
    const rules = brings ? { publish: publish ?? [], subscribe: subscribe ?? [] } : undefined
    return { ...anonymous, user, source: 'webhook', roles, rules }
  }

  /** Ends what is being asked. */
  close(): void {
    this.#closing.abort()
  }

  #recall(digest: string): Answer | undefined {
    const found = this.#remembered.get(digest)
    return found !== undefined && found.until > this.#now() ? found.answer : undefined
  }

  #join(digest: string, body: string, network: string): Promise<Answer> {
    const asked = this.#asking.get(digest)
    if (asked !== undefined) return asked
    if (this.#asking.size >= maxAsking) throw unavailable(`${maxAsking} questions wait for an answer`)
    const isMost = this.#askingPerAddress.of(network) >= maxAskingPerAddress
    if (isMost || this.#askingPerAddress.exceededBy(network, 1))
      throw new GatewayError('too-many-attempts', { retryAfter: 1 })
    this.#askingPerAddress.take(network, 1)
    const asking = this.#ask(body)
      .then(answer => this.#remember(digest, network, answer))
      .finally(() => this.#settled(digest, network))
    this.#asking.set(digest, asking)
    return asking
  }

  #settled(digest: string, network: string): void {
    this.#asking.delete(digest)
    this.#askingPerAddress.giveBack(network, 1)
  }

  #remember(digest: string, network: string, answer: Answer): Answer {
    this.#remembered.delete(digest)
    if (answer.ttl === 0) return answer
    this.#remembered.set(digest, network, { answer, until: this.#now() + answer.ttl * 1000 })
    return answer
  }

  async #ask(body: string): Promise<Answer> {
    const { url, timeout, secret } = this.#config
    const authorization: Record<string, string> = secret === undefined ? {} : { authorization: `Bearer ${secret}` }
    try {
      const response = await fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/json', ...authorization },
        body,
        // It would take passwords to where nobody said that they should go.
        redirect: 'error',
        signal: AbortSignal.any([AbortSignal.timeout(timeout), this.#closing.signal]),
      })
      return await readAnswer(response)
    } catch (error) {
      throw error instanceof GatewayError ? error : unavailable(error)
    }
  }
}

async function readAnswer(response: Response): Promise<Answer> {
  if (response.status !== 200) {
    await response.body?.cancel()
    if (response.status === 401 || response.status === 403) throw new GatewayError('identity-refused')
    throw unavailable(`the webhook answered with status ${response.status}`)
  }
  const result = answerForm.safeParse(JSON.parse(await readText(response)))
  if (!result.success) throw unavailable(`the webhook's answer is not right: ${firstProblem(result.error)}`)
  return result.data
}

async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.length
    if (size > longestAnswer) throw unavailable(`the webhook's answer has more than ${longestAnswer} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function unavailable(cause: unknown): GatewayError {
  return new GatewayError('identity-unavailable', { cause })
}
