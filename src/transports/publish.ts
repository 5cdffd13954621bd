import { createHash } from 'node:crypto'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { RateLimits } from '../access/rate-limits.js'
import { GatewayError } from '../base/errors.js'
import type { Caller } from '../http/api-gate.js'
import { ParameterError, readItems, readQuery } from '../http/parameters.js'
import { sendProblem } from '../http/problem.js'
import { sizeOf } from '../journal/journal.js'
import { defaultPublishTimeout, type PublishOptions } from '../sources/publisher.js'
import { topicPredicate } from '../topics/match.js'
import { type AdmittedRequest, registerBufferedBodyRoutes } from './buffered-body-routes.js'
import {
  type IdempotencyBounds,
  IdempotencyKeys,
  type KeyedRequest,
  newProgress,
  type Progress,
} from './idempotency.js'
import { findPublished } from './interrupted-publishes.js'
import {
  messageJson,
  messageParameters,
  type Publication,
  publicationJson,
  receiptTime,
  requestedDevices,
} from './message-json.js'
import type { Operation } from './operation.js'
import { propertyMembers, toProperties, userPropertyParameters } from './property-json.js'
import { countPublishes, publisherAccount, withReceipts } from './publishing.js'
import { flag } from './subscribe-query.js'
import type { Push, TransportContext } from './transport-context.js'
import { readBody } from './work-queue.js'

export interface PublishRouteOptions extends TransportContext {
  /** Messages of each user, or of each network without a user; left out for no limit. */
  readonly publishes?: RateLimits | undefined
  /** Bounds of stored requests with an `Idempotency-Key`. */
  readonly idempotency?: Partial<IdempotencyBounds>
  /** Milliseconds that a request waits for one message. Default: `defaultPublishTimeout`. */
  readonly answerTime?: number
}

const url = '/v1/publish'

/** Messages of one batch. */
const maxMessages = 1000

const defaultIdempotency: IdempotencyBounds = { maxAge: 10 * 60_000, maxKeys: 20_000, maxBytes: 32 * 1024 ** 2 }

/** Additional time, in milliseconds, until a message with a key counts as lost. */
const extraTimeout = 60_000

const keyForm = /^[\x20-\x7e]{1,255}$/

const query = z.object({
  ...messageParameters,
  retain: flag().describe('Whether the message is retained'),
  receiptFrom: z
    .preprocess(value => (typeof value === 'string' ? [value] : value), requestedDevices)
    .optional()
    .describe(
      'Devices whose receipts are requested, one in each parameter; present: all current listeners of the topic',
    ),
  receiptWithin: receiptTime.optional(),
  contentType: propertyMembers.contentType,
  userProperties: userPropertyParameters,
  responseTopic: propertyMembers.responseTopic,
  correlationData: propertyMembers.correlationData,
  expires: propertyMembers.expires,
})

/** The same, with the properties encoded. */
const publishQuery = query.transform((parameters, context) => ({
  ...parameters,
  extras: toProperties(parameters, context),
}))

const count = `must have 1 to ${maxMessages} messages`
// Each element is parsed later, one by one.
const messageList = z.array(z.unknown()).min(1, count).max(maxMessages, count)

const id = z.string().nullable().describe('null if push does not cover the topic')

/** `POST /v1/publish` */
export const publishOperations: readonly Operation[] = [
  {
    method: 'post',
    path: url,
    summary: 'Publishes the body as a message on topic, or, without topic, the messages in its JSON.',
    query,
    headers: {
      'Idempotency-Key':
        'For retries without duplicates: the same request with the same key is published once within 10 minutes',
    },
    body: z.union([z.strictObject({ messages: z.array(messageJson).min(1).max(maxMessages) }), messageJson]),
    rawBody: 'With topic: the payload, whatever its type',
    responses: {
      201: {
        description: 'Published, and in the journal',
        schema: z.union([z.object({ id }), z.object({ ids: z.array(id) })]),
        headers: {
          'Idempotency-Replayed': 'true for a repeated response to an earlier request with this Idempotency-Key',
        },
      },
      400: { description: 'A parameter or a member of the body is invalid; nothing is published' },
      403: { description: 'No permission for a topic; nothing is published' },
      409: { description: 'The first request with this Idempotency-Key is still in progress' },
      413: { description: 'The body is too large, encoded or decoded' },
      415: { description: 'The Content-Encoding of the body is not gzip, deflate or br' },
      422: { description: 'The Idempotency-Key was used for another request' },
      429: { description: 'Too many messages per second, or too many pending receipts' },
      503: {
        description: 'The broker or the journal is temporarily unavailable; ids has the published messages of a batch',
      },
      504: { description: 'The broker accepted the message that parameter names, but did not deliver it in time' },
    },
  },
]

/** Adds `POST /v1/publish`: one raw message, or up to a thousand as JSON. */
export function registerPublish(app: FastifyInstance, options: PublishRouteOptions): void {
  const { gate, state, push } = options
  const keys = new IdempotencyKeys(state, push.journal, { ...defaultIdempotency, ...options.idempotency })
  registerBufferedBodyRoutes(app, options, (scope, admitted) => {
    scope.post(url, async (request, reply) => publish(admitted(request), reply, options, keys))
  })
  gate.registerOtherMethods(app, { url, allowed: ['POST'], headers: 'authorization, content-type, idempotency-key' })
}

interface PublishRequest {
  readonly publications: readonly Publication[]
  /** The parameter that an error names. */
  readonly nameOf: (index: number, member: 'topic' | 'receipt') => string
  /** Whether the response has one id instead of a list. */
  readonly single: boolean
}

async function publish(
  admitted: AdmittedRequest,
  reply: FastifyReply,
  options: PublishRouteOptions,
  keys: IdempotencyKeys,
): Promise<FastifyReply> {
  const { request, caller } = admitted
  const requested = await readPublications(admitted, options)
  checkReceipts(requested, options.push)
  const refused = requested.publications.findIndex(({ message }) => !caller.permissions.mayPublish(message.topic))
  if (refused !== -1) {
    const hint = requested.publications[refused]?.message.topic.slice(0, 256) ?? ''
    const parameter = requested.nameOf(refused, 'topic')
    return refuse(reply, new GatewayError('topic-refused', { hint }), options, { parameter })
  }
  const keyed = await beginKeyed(request, caller, requested, keys)
  const progress: Progress = keyed?.progress ?? newProgress()
  try {
    if (progress.done) reply.header('idempotency-replayed', 'true')
    else await publishRest(requested, progress, caller, { ...options, keyed })
    // Before the response, after which the client may repeat the request at another gateway.
    await keyed?.end()
    return sendIds(reply, requested, progress.ids)
  } catch (error) {
    await keyed?.end()
    const gatewayError = GatewayError.from(error)
    const { ids } = progress
    const isOfReceipts = gatewayError.reason === 'too-many-receipts'
    const parameter = isOfReceipts ? requested.nameOf(ids.length, 'receipt') : `messages[${ids.length}]`
    if (!requested.single) return refuse(reply, gatewayError, options, { parameter, ids })
    if (isOfReceipts) return refuse(reply, gatewayError, options, { parameter })
    throw error
  }
}

/** @throws {ParameterError} rejects with it */
async function readPublications(
  { request, body, caller }: AdmittedRequest,
  { queue, bodies }: Pick<TransportContext, 'queue' | 'bodies'>,
): Promise<PublishRequest> {
  const { topic, qos, retain, receiptFrom, receiptWithin, extras, expires } = readQuery(request, publishQuery)
  if (topic === undefined) {
    const parsing = readItems(body, {
      item: publicationJson,
      list: 'messages',
      items: messageList,
      maxValues: bodies.jsonValues,
    })
    const { items: publications, isList } = await readBody(body, caller, queue, parsing)
    const nameOf = (index: number, member: string): string => (isList ? `messages[${index}].${member}` : member)
    return { publications, nameOf, single: !isList }
  }
  const receipt = receiptOf(receiptFrom, receiptWithin)
  const message = { topic, payload: body, qos, retain, ...extras }
  const publication = { message, receipt, expiryText: expires?.text }
  const nameOf = (_: number, member: string): string => (member === 'receipt' ? 'receiptFrom' : member)
  return { publications: [publication], nameOf, single: true }
}

/** @throws {ParameterError} */
function receiptOf(from: readonly string[] | undefined, within: number | undefined): Publication['receipt'] {
  if (from === undefined && within === undefined) return undefined
  if (from === undefined) throw new ParameterError('receiptFrom', 'receiptFrom is missing')
  if (within === undefined) throw new ParameterError('receiptWithin', 'receiptWithin is missing')
  return { from: from.length === 1 && from[0] === 'present' ? 'present' : from, within }
}

/** @throws {ParameterError} if receipts are requested on a topic that push does not have */
function checkReceipts({ publications, nameOf }: PublishRequest, { config }: Push): void {
  const isPushed = topicPredicate(config.topics)
  for (const [index, { message, receipt }] of publications.entries()) {
    if (!receipt || isPushed(message.topic)) continue
    const name = nameOf(index, 'receipt')
    throw new ParameterError(name, `${name} is not available here: push does not cover this topic (push.topics)`)
  }
}

/** @throws {ParameterError} @throws {GatewayError} rejects as `IdempotencyKeys.begin` */
async function beginKeyed(
  { headers }: FastifyRequest,
  caller: Caller,
  { publications, single }: PublishRequest,
  keys: IdempotencyKeys,
): Promise<KeyedRequest | undefined> {
  const key = headers['idempotency-key']
  if (key === undefined) return undefined
  if (typeof key !== 'string' || !keyForm.test(key)) {
    throw new ParameterError('Idempotency-Key', 'Idempotency-Key must have 1 to 255 printable characters of ASCII')
  }
  const hash = createHash('sha256').update(String(single))
  for (const { message, receipt, expiryText } of publications) {
    const { topic, payload, qos, retain, properties } = message
    const rest = [topic, qos, retain, receipt, expiryText, properties?.toString('base64'), payload.length]
    hash.update(`${JSON.stringify(rest)}\n`).update(payload)
  }
  return keys.begin(publisherAccount(caller), key, hash.digest('base64'))
}

/**
 * Publishes the remaining messages one after the other, so that they keep their order whatever their QoS; a failure ends the batch.
 *
 * @throws {GatewayError} `publishing-too-fast`, and as `withReceipts` and `KeyedRequest.renew`
 */
async function publishRest(
  { publications }: PublishRequest,
  progress: Progress,
  caller: Caller,
  {
    push,
    publishes,
    anonymousPublishes,
    keyed,
    answerTime = defaultPublishTimeout,
  }: Pick<PublishRouteOptions, 'push' | 'publishes' | 'anonymousPublishes' | 'answerTime'> & {
    readonly keyed: KeyedRequest | undefined
  },
): Promise<void> {
  // A message of an earlier request with the key.
  if (progress.inProgress) await inTime(progress.inProgress.settled, answerTime)
  await findInterrupted(publications, progress, push)
  const left = publications.slice(progress.ids.length)
  // A batch may exceed the burst; later messages have to wait for it.
  const bytes = left.reduce((sum, { message }) => sum + sizeOf(message), 0)
  countPublishes({ publishes, anonymousPublishes }, caller, left.length, bytes)
  const by = publisherAccount(caller)
  for (const publication of left) {
    await keyed?.renew()
    await inTime(publishNext(push, publication, progress, keyed ? { by, extraTimeout } : { by }), answerTime)
  }
  progress.done = true
}

/** Records the messages that a gateway has published that has ended. */
async function findInterrupted(
  publications: readonly Publication[],
  progress: Progress,
  { journal, config }: Push,
): Promise<void> {
  const { ids, uncertainAfter } = progress
  if (uncertainAfter === undefined) return
  const left = publications.slice(ids.length)
  const messages = left.map(({ message }) => message)
  const events = await findPublished(journal, messages, uncertainAfter, topicPredicate(config.topics))
  // It requests the receipts of a message before it publishes the next.
  if (left[events.length - 1]?.receipt) progress.withoutReceipts = events.pop() ?? undefined
  ids.push(...events.map(event => event?.id ?? null))
  progress.uncertainAfter = undefined
}

/** Publishes the next message and records the progress, also after the request has timed out. */
function publishNext(
  push: Push,
  publication: Publication,
  progress: Progress,
  options: PublishOptions & { readonly by: string },
): Promise<void> {
  const settled = withReceipts(push.receipts, publication, options.by, async acknowledgements => {
    progress.withoutReceipts ??= await push.publisher.publish(publication.message, { ...options, acknowledgements })
    return progress.withoutReceipts
  })
    .then(event => {
      progress.withoutReceipts = undefined
      progress.ids.push(event?.id ?? null)
    })
    .finally(() => {
      progress.inProgress = undefined
    })
  settled.catch(() => {})
  progress.inProgress = { message: publication.message, settled }
  return settled
}

/** @throws {GatewayError} rejects with `publish-timeout` after `milliseconds`, and as `promise` */
function inTime(promise: Promise<void>, milliseconds: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new GatewayError('publish-timeout')), milliseconds)
    promise.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

function sendIds(reply: FastifyReply, { single }: PublishRequest, ids: readonly (string | null)[]): FastifyReply {
  const [first] = ids
  return reply
    .code(201)
    .header('cache-control', 'no-store')
    .send(single ? { id: first } : { ids })
}

/** Sends an error with further members, otherwise as the error handler of the app. */
function refuse(
  reply: FastifyReply,
  gatewayError: GatewayError,
  { log, metrics }: Pick<TransportContext, 'log' | 'metrics'>,
  more: { readonly parameter: string; readonly ids?: readonly (string | null)[] },
): FastifyReply {
  const { reason, httpStatus: status, text: detail, retryAfter, level, cause } = gatewayError
  metrics.refused(reason)
  log[level]({ path: url, reason, status, err: cause }, detail)
  const headers: Record<string, string> = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }
  return sendProblem(reply, { status, detail, reason, ...more }, headers)
}
