import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { resolve } from 'node:path'
import type { Clock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import { StartError } from '../../base/start-error.js'
import { timeLimit } from '../../base/time-limit.js'
import { version } from '../../base/version.js'
import { parseWebhookSecret, type WebhookCallConfig, webhookSecretForm } from '../../config/notify.js'
import { type Channel, SendError } from './channel.js'
import type { QueuedCall } from './notification-queue.js'

export interface WebhookChannelOptions {
  readonly rule: string
  readonly config: WebhookCallConfig
  /** Relative paths of the configuration begin here. */
  readonly cwd: string
  /** Stores the events of a call that was given up. Resolves in any case. */
  readonly onGivenUp: (call: QueuedCall, reason: 'given-up' | 'gone', error: string) => Promise<void>
  readonly clock: Clock
  readonly log: Logger
}

/** Bytes of a response that are read, so that the receiver can write it; and how long, in milliseconds. */
const [maxResponseBytes, maxResponseTime] = [65_536, 1000]

/**
 * Opens the channel to the webhook of a rule: requests with the headers of Standard Webhooks, one at a time. Each has a connection of its
 * own. Any status but 2xx is a failure, a redirect too; after 410 it calls no more.
 *
 * @throws {StartError} if a file cannot be used
 */
export async function openWebhookChannel(options: WebhookChannelOptions): Promise<Channel<QueuedCall>> {
  const { rule, config, cwd, onGivenUp, clock, log } = options
  const { url, timeout, giveUpAfter } = config
  const ca = config.ca === undefined ? undefined : readCa(resolve(cwd, config.ca), rule)
  await readSecrets(config, cwd).catch(error => {
    throw new StartError(`notify: webhook.secretFile of ${rule}: ${messageOf(error)}`, { cause: error })
  })
  // An agent of its own: the global one may have a proxy.
  const agent = isTls(url)
    ? new HttpsAgent({ keepAlive: false, ...(ca && { ca }) })
    : new HttpAgent({ keepAlive: false })
  const closing = new AbortController()
  let isGoneLogged = false
  return {
    noun: 'a webhook call',
    giveUpAfter,
    delays: { first: 1000, max: 300_000, jitter: true },
    sentLevel: 'debug',
    send: async ({ id, text }) => {
      const limit = timeLimit(timeout, closing.signal)
      try {
        const secrets = await readSecrets(config, cwd)
        const body = Buffer.from(text)
        const headers = {
          'content-type': 'application/json',
          'content-length': body.length,
          'user-agent': `mqway/${version}`,
          ...signatureHeaders(id, Math.floor(clock.now() / 1000), body, secrets),
        }
        const response = await post(url, { agent, headers, signal: limit.signal }, body)
        checkStatus(response, clock.now())
      } catch (error) {
        if (error instanceof SendError) throw error
        const why = limit.isOver ? `no response within ${timeout} ms` : messageOf(error)
        throw new SendError(why, { isShared: true, cause: error })
      } finally {
        limit.end()
      }
    },
    fieldsOf: ({ id, events }) => ({ rule, webhookId: id, events }),
    givenUp: async (call, error) => {
      const isGone = error instanceof SendError && error.isGone
      await onGivenUp(call, isGone ? 'gone' : 'given-up', messageOf(error))
      const about = { rule, webhookId: call.id, events: call.events, err: error }
      if (!isGone) log.error(about, 'Failed to send a webhook call: given up, and in the dead-letter log')
      else if (!isGoneLogged) {
        isGoneLogged = true
        const text =
          'The webhook answered 410 (gone): it is called no more until the next start, and its messages go to the dead-letter log'
        log.error(about, text)
      }
    },
    close: () => {
      closing.abort()
      agent.destroy()
    },
  }
}

/** The headers of Standard Webhooks 1.0: one signature for each secret. @param timestamp seconds since 1970 */
function signatureHeaders(
  id: string,
  timestamp: number,
  body: Buffer,
  secrets: readonly Buffer[],
): Record<string, string> {
  const signatures = secrets.map(secret => {
    const digest = createHmac('sha256', secret).update(`${id}.${timestamp}.`).update(body).digest('base64')
    return `v1,${digest}`
  })
  return {
    'webhook-id': id,
    'webhook-timestamp': String(timestamp),
    'webhook-signature': signatures.join(' '),
  }
}

/** The secrets of a webhook, the current one first. A file is read for each call, so that a change needs no restart. */
async function readSecrets(
  { secret, previousSecret, secretFile }: WebhookCallConfig,
  cwd: string,
): Promise<readonly Buffer[]> {
  const texts =
    secretFile === undefined
      ? [secret, previousSecret].filter(text => text !== undefined)
      : (await readFile(resolve(cwd, secretFile), 'latin1')).trim().split(/\s+/)
  if (texts.length > 2) throw new Error('must have one or two lines')
  return texts.map(text => {
    const bytes = parseWebhookSecret(text)
    if (!bytes) throw new Error(`each line must be ${webhookSecretForm}`)
    return bytes
  })
}

function readCa(path: string, rule: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new StartError(`notify: webhook.ca of ${rule}: cannot read ${path}`, { cause: error })
  }
}

interface WebhookResponse {
  readonly status: number
  /** The header `Retry-After`. */
  readonly retryAfter: string | undefined
}

/** Resolves when the response is read, or exceeds its bounds: the receiver has decided by its status. */
function post(url: string, options: RequestOptions, body: Buffer): Promise<WebhookResponse> {
  const request = isTls(url) ? httpsRequest : httpRequest
  return new Promise((done, fail) => {
    let result: WebhookResponse | undefined
    const sent = request(url, { ...options, method: 'POST' })
    const settle = (error: Error): void => (result ? done(result) : fail(error))
    sent.on('error', settle)
    sent.on('response', response => {
      const { statusCode: status = 0, headers } = response
      result = { status, retryAfter: headers['retry-after'] }
      discard(response)
    })
    // Also after a switch of protocols, which nobody asked for.
    sent.on('close', () => settle(new Error('the receiver closed the connection')))
    sent.end(body)
  })
}

/** Reads a body to its end, or its bounds. */
function discard(response: IncomingMessage): void {
  let size = 0
  const timer = setTimeout(() => response.destroy(), maxResponseTime)
  response.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > maxResponseBytes) response.destroy()
  })
  response.on('error', () => {})
  response.on('close', () => clearTimeout(timer))
}

function checkStatus({ status, retryAfter }: WebhookResponse, now: number): void {
  if (status >= 200 && status < 300) return
  const isRedirect = status >= 300 && status < 400
  const text = `the webhook answered with status ${status}${isRedirect ? '; redirects are not followed' : ''}`
  throw new SendError(text, { isShared: true, isGone: status === 410, retryAfter: parseRetryAfter(retryAfter, now) })
}

/** The header `Retry-After` (RFC 9110 §10.2.3) in milliseconds from `now`; `undefined` for none, or an invalid one. */
function parseRetryAfter(text: string | undefined, now: number): number | undefined {
  if (text === undefined) return undefined
  const wait = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now
  return Number.isNaN(wait) ? undefined : Math.max(0, wait)
}

function isTls(url: string): boolean {
  return new URL(url).protocol === 'https:'
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
