import type { FastifyInstance, FastifyReply } from 'fastify'
import { z } from 'zod'
import type { RateLimits } from '../access/rate-limits.js'
import { GatewayError } from '../base/errors.js'
import { duration } from '../config/units.js'
import type { Caller } from '../http/api-gate.js'
import { ParameterError, parseJsonBody, readQuery, readValue } from '../http/parameters.js'
import { sendProblem } from '../http/problem.js'
import { sizeOf } from '../journal/journal.js'
import type { Message } from '../mqtt/message.js'
import { decodeMessageProperties } from '../mqtt/properties.js'
import type { Requests } from '../sources/requests.js'
import { topicPredicate } from '../topics/match.js'
import { type AdmittedRequest, registerBufferedBodyRoutes } from './buffered-body-routes.js'
import { textOf } from './event-json.js'
import { messageMembers, messageParameters, payloadOf, topicName, toQos } from './message-json.js'
import type { Operation } from './operation.js'
import {
  eventProperties,
  propertiesJson,
  propertyMembers,
  toProperties,
  userPropertyParameters,
} from './property-json.js'
import { countPublishes, publisherAccount } from './publishing.js'
import { flag } from './subscribe-query.js'
import type { TransportContext } from './transport-context.js'
import { readBody } from './work-queue.js'

export interface RequestRouteOptions extends TransportContext {
  readonly requests: Requests
  /** Messages of each user, or of each network without a user; left out for no limit. */
  readonly publishes?: RateLimits | undefined
}

const url = '/v1/request'

const timeout = duration({ min: '100ms', max: '1m' })
  .prefault('10s')
  .describe('Time to wait for the response, such as 10s; at most a minute. The message expires then')

const replyTopic = topicName
  .optional()
  .describe(
    'The topic on which clients that know no response topic publish their reply: the next message there is the response',
  )

const query = z.object({
  ...messageParameters,
  contentType: propertyMembers.contentType,
  userProperties: userPropertyParameters,
  timeout,
  replyTopic,
  enveloped: flag().describe('Whether the response is JSON, with the properties'),
})

const { topic, payload, payloadBase64, json, qos } = messageMembers
const { contentType, userProperties } = propertyMembers

const requestJson = z.strictObject({
  ...{ topic, payload, payloadBase64, json, qos, contentType, userProperties, timeout, replyTopic },
  enveloped: z.boolean({ error: 'must be true or false' }).default(false),
})

/** A request that was read. */
interface ReadRequest {
  readonly message: Message
  readonly timeout: number
  readonly replyTopic: string | undefined
  readonly enveloped: boolean
}

const queried = query.transform((parameters, context) => ({ ...parameters, extras: toProperties(parameters, context) }))

const fromJson = requestJson.transform((members, context): ReadRequest => {
  const { topic, timeout, replyTopic, enveloped } = members
  const message = { topic, payload: payloadOf(members, context), qos: toQos(members.qos), retain: false }
  return { message: { ...message, ...toProperties(members, context) }, timeout, replyTopic, enveloped }
})

/** `POST /v1/request` */
export const requestOperations: readonly Operation[] = [
  {
    method: 'post',
    path: url,
    summary: 'Publishes a message with a response topic, and answers with the payload of the response.',
    query,
    body: requestJson,
    rawBody: 'With topic: the payload, whatever its type',
    responses: {
      200: {
        description: 'The payload of the response, with its content type; JSON with enveloped=true',
        schema: z.object({
          payload: z.string().optional(),
          payloadBase64: z.string().optional(),
          ...eventProperties,
        }),
      },
      400: { description: 'A parameter or a member of the body is invalid; nothing is published' },
      403: { description: 'No permission to publish on the topic, or to subscribe to replyTopic' },
      429: { description: 'Too many messages per second' },
      501: { description: 'The broker does not speak MQTT 5, and there is no replyTopic' },
      503: { description: 'The broker is temporarily unavailable, or too many requests wait' },
      504: { description: 'No client answered in time (response-timeout)' },
    },
  },
]

/** Adds `POST /v1/request`. */
export function registerRequest(app: FastifyInstance, options: RequestRouteOptions): void {
  registerBufferedBodyRoutes(app, options, (scope, admitted) => {
    scope.post(url, async (request, reply) => exchange(admitted(request), reply, options))
  })
  options.gate.registerOtherMethods(app, { url, allowed: ['POST'], headers: 'authorization, content-type' })
}

async function exchange(
  admitted: AdmittedRequest,
  reply: FastifyReply,
  options: RequestRouteOptions,
): Promise<FastifyReply> {
  const { caller } = admitted
  const { message, timeout, replyTopic, enveloped } = await readRequest(admitted, options)
  const refused = refusedTopic(caller, message.topic, replyTopic)
  if (refused) return refuse(reply, refused, options)
  requireReplyTopic(replyTopic, message.topic, options)
  // The client may have left during authentication.
  if (admitted.request.raw.socket.destroyed) return reply.hijack()
  const { gate, requests } = options
  const release = gate.hold(caller)
  const left = new AbortController()
  const onClose = (): void => left.abort()
  reply.raw.on('close', onClose)
  try {
    countPublishes(options, caller, 1, sizeOf(message))
    const by = publisherAccount(caller)
    const response = await requests.send(message, { by, timeout, replyTopic, signal: left.signal })
    return sendResponse(reply, response, enveloped)
  } catch (error) {
    if (left.signal.aborted) return reply.hijack()
    throw error
  } finally {
    reply.raw.off('close', onClose)
    release()
  }
}

/** @throws {ParameterError} rejects with it */
async function readRequest(
  { request, body, caller }: AdmittedRequest,
  { queue, bodies }: Pick<TransportContext, 'queue' | 'bodies'>,
): Promise<ReadRequest> {
  const { topic, qos, extras, timeout, replyTopic, enveloped } = readQuery(request, queried)
  if (topic !== undefined) {
    return { message: { topic, payload: body, qos, retain: false, ...extras }, timeout, replyTopic, enveloped }
  }
  return readBody(body, caller, queue, parse(body, bodies.jsonValues))
}

/** @throws {ParameterError} */
function* parse(body: Buffer, maxValues: number): Generator<undefined, ReadRequest> {
  const value = parseJsonBody(body, maxValues)
  yield undefined
  return readValue(fromJson, value)
}

interface Refused {
  readonly parameter: 'topic' | 'replyTopic'
  readonly topic: string
}

function refusedTopic({ permissions }: Caller, topic: string, replyTopic: string | undefined): Refused | undefined {
  if (!permissions.mayPublish(topic)) return { parameter: 'topic', topic }
  if (replyTopic !== undefined && !permissions.maySubscribe(replyTopic)) {
    return { parameter: 'replyTopic', topic: replyTopic }
  }
  return undefined
}

/** @throws {ParameterError} */
function requireReplyTopic(replyTopic: string | undefined, topic: string, { push }: TransportContext): void {
  if (replyTopic === undefined) return
  if (replyTopic === topic)
    throw new ParameterError('replyTopic', 'replyTopic must be another topic than that of the request')
  if (topicPredicate(push.config.topics)(replyTopic)) return
  throw new ParameterError('replyTopic', 'replyTopic is not available here: push does not cover it (push.topics)')
}

function refuse(
  reply: FastifyReply,
  { parameter, topic }: Refused,
  { log, metrics }: Pick<TransportContext, 'log' | 'metrics'>,
): FastifyReply {
  const {
    reason,
    httpStatus: status,
    text: detail,
    level,
  } = new GatewayError('topic-refused', { hint: topic.slice(0, 256) })
  metrics.refused(reason)
  log[level]({ path: url, reason, status }, detail)
  return sendProblem(reply, { status, detail, reason, parameter })
}

/** A media type (RFC 9110 §8.3.1). */
const mediaType = /^[\w!#$&^.+-]{1,127}\/[\w!#$&^.+-]{1,127}(?:\s*;[\x20-\x7e]{0,255})?$/

/** Sends the response; a client chose its payload and its type, so that a browser must not run it as a page of the gateway. */
function sendResponse(reply: FastifyReply, message: Message, enveloped: boolean): FastifyReply {
  const text = textOf(message.payload)
  reply.headers({
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; sandbox",
    'x-content-type-options': 'nosniff',
  })
  if (enveloped) {
    const payload = text === undefined ? { payloadBase64: message.payload.toString('base64') } : { payload: text }
    return reply.send({ ...payload, ...propertiesJson(message) })
  }
  const given = message.properties && decodeMessageProperties(message.properties).contentType
  const fallback = text === undefined ? 'application/octet-stream' : 'text/plain; charset=utf-8'
  return reply.type(given !== undefined && mediaType.test(given) ? given : fallback).send(message.payload)
}
