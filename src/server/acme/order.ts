import { Agent } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSecureContext } from 'node:tls'
import { axios, Client, crypto } from 'acme-client'
import { timeLimit } from '../../base/time-limit.js'
import type { PendingChallenges } from './pending-challenges.js'

export interface OrderOptions {
  /** URL of the directory of the ACME server. */
  readonly directory: string
  /** CAs that may sign the certificate of the ACME server (PEM); default: those of Node. */
  readonly ca: string | undefined
  /** The private key of the account (PEM). An account is made if the server has none for it. */
  readonly accountKey: string
  readonly email: string | undefined
  readonly domains: readonly string[]
  readonly challenge: 'http-01' | 'tls-alpn-01'
  /** Gets the responses to the CA, and is cleared at the end. */
  readonly challenges: PendingChallenges
  /** Ends the order. */
  readonly signal: AbortSignal
}

/** Milliseconds of a whole order, and of silence in one request. */
const maxOrderTime = 5 * 60 * 1000
const requestTimeout = 30 * 1000
/** Bytes of a response; a chain of certificates has some 5 KiB. */
const maxResponseBytes = 1024 * 1024
/** Milliseconds between two looks at the state of an order, at first and at most. */
const [firstPause, maxPause] = [200, 5000]

/** Makes the private key of an account (PEM). */
export async function makeAccountKey(): Promise<string> {
  return (await crypto.createPrivateEcdsaKey()).toString()
}

/**
 * Orders a certificate (RFC 8555 §7.4) with a new key.
 *
 * @returns the private key, the certificate and its chain (PEM)
 * @throws with the reason of the CA, if it gives one; within five minutes, or when `signal` aborts
 */
export async function orderCertificate(options: OrderOptions): Promise<string> {
  const limit = timeLimit(maxOrderTime, options.signal)
  const agent = new Agent({ keepAlive: true, ...(options.ca !== undefined && { ca: options.ca }) })
  configureRequests(agent, limit.signal)
  try {
    return await order(options, limit.signal)
  } catch (error) {
    if (limit.isOver) throw new Error(`the order was not complete within ${maxOrderTime / 60_000} minutes`)
    throw error
  } finally {
    limit.end()
    agent.destroy()
    options.challenges.clear()
  }
}

/** Configures the HTTP client of the library, which has one for all. */
function configureRequests(httpsAgent: Agent, signal: AbortSignal): void {
  const bounds = { timeout: requestTimeout, maxContentLength: maxResponseBytes, maxRedirects: 0 }
  Object.assign(axios.defaults, { httpsAgent, signal, ...bounds })
  // Its own repetitions wait for as long as the server says, and lose the reason of a failed connection.
  axios.interceptors.request.clear()
  axios.interceptors.response.clear()
}

async function order(options: OrderOptions, signal: AbortSignal): Promise<string> {
  const { directory: directoryUrl, accountKey, email, domains } = options
  const client = new Client({ directoryUrl, accountKey })
  const contact = email === undefined ? [] : [`mailto:${email}`]
  await client.createAccount({ termsOfServiceAgreed: true, contact })
  const placed = await client.createOrder({ identifiers: domains.map(value => ({ type: 'dns', value })) })
  // A CA may remember that it checked the names (§7.1.3).
  if (placed.status === 'pending') await respondToChallenges(client, placed, options)
  await untilStatus(client, placed, 'ready', signal)
  const key = await crypto.createPrivateEcdsaKey()
  const [, csr] = await crypto.createCsr({ altNames: [...domains] }, key)
  await client.finalizeOrder(placed, csr)
  const valid = await untilStatus(client, placed, 'valid', signal)
  return `${key.toString().trim()}\n${(await client.getCertificate(valid)).trim()}\n`
}

type PlacedOrder = Awaited<ReturnType<Client['createOrder']>>

/** Prepares the response for each name before it asks the CA for the first check. */
async function respondToChallenges(client: Client, placed: PlacedOrder, options: OrderOptions): Promise<void> {
  const authorizations = await client.getAuthorizations(placed)
  const accepted = []
  for (const authorization of authorizations) {
    if (authorization.status !== 'pending') continue
    const { value: name } = authorization.identifier
    const challenge = authorization.challenges.find(({ type }) => type === options.challenge)
    if (challenge === undefined) throw new Error(`the CA does not offer ${options.challenge} for ${name}`)
    const keyAuthorization = await client.getChallengeKeyAuthorization(challenge)
    if (options.challenge === 'http-01') {
      options.challenges.addResponse(challenge.token, keyAuthorization)
    } else {
      const ownKey = await crypto.createPrivateEcdsaKey()
      const [key, cert] = await crypto.createAlpnCertificate(authorization, keyAuthorization, ownKey)
      options.challenges.addContext(name, createSecureContext({ key, cert }))
    }
    accepted.push(challenge)
  }
  for (const challenge of accepted) await client.completeChallenge(challenge)
}

/** Waits until the order has this status, or a later one. */
async function untilStatus(
  client: Client,
  placed: PlacedOrder,
  wanted: 'ready' | 'valid',
  signal: AbortSignal,
): Promise<PlacedOrder> {
  for (let pause = firstPause; ; pause = Math.min(pause * 2, maxPause)) {
    const current = await client.getOrder(placed)
    if (current.status === wanted || current.status === 'valid') return current
    if (current.status === 'invalid') throw new Error(await reasonOf(client, current))
    await sleep(pause, undefined, { signal })
  }
}

/** Why an order is invalid: the problem of a check (§8), or of the order. */
async function reasonOf(client: Client, invalid: PlacedOrder): Promise<string> {
  const authorizations = await client.getAuthorizations(invalid)
  const failed = authorizations.flatMap(({ identifier, challenges }) =>
    challenges.flatMap(({ error }) => (error === undefined ? [] : `${identifier.value}: ${detailOf(error)}`)),
  )
  return failed.join('; ') || detailOf(invalid.error)
}

function detailOf(problem: unknown): string {
  if (typeof problem !== 'object' || problem === null) return 'the CA gives no reason'
  return String(Reflect.get(problem, 'detail') ?? Reflect.get(problem, 'type') ?? 'the CA gives no reason')
}
