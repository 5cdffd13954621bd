import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { isUserName } from '../../base/identity.js'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Admission, Caller } from '../../http/api-gate.js'
import { ParameterError } from '../../http/parameters.js'
import { QueryCache } from '../../http/query-cache.js'
import { addVary } from '../../http/responses.js'
import { parseId } from '../../journal/event.js'
import { eventEncoders, eventSchema } from '../event-json.js'
import { asksForScript, callbackPattern, scriptEnd, scriptStart, scriptType } from '../jsonp.js'
import type { Operation } from '../operation.js'
import { count, maxCursorLength, subscribeFields } from '../subscribe-query.js'
import { authorizeSubscribe, deviceOf } from '../subscriptions.js'
import type { TransportContext } from '../transport-context.js'
import { OpenPolls } from './open-polls.js'
import { type PollEnd, type PollFormat, PollResponse } from './poll-response.js'
import { type PollWriter, ReplyWriter } from './poll-writer.js'
import { RepeatedPolls } from './repeated-polls.js'

const url = '/v1/poll'

const query = z.object({
  ...subscribeFields,
  timeout: count(0, 60).default(25).describe('Seconds to wait for an event; 0 for an immediate response'),
  limit: count(1, 1000).default(100).describe('Events in one response; retained messages do not count'),
  handle: z
    .string()
    .refine(isUserName, 'must have 1 to 255 bytes, and no control characters')
    .optional()
    .describe('A name for the poll: a newer poll with the same handle completes the earlier one without events'),
  callback: z
    .string()
    .regex(callbackPattern, 'must have 1 to 128 letters, digits, and . _ [ ]')
    .optional()
    .describe('The function of a JSONP response, with push.jsonp; credentials are ignored'),
})

/** `GET /v1/poll` */
export const pollOperations: readonly Operation[] = [
  {
    method: 'get',
    path: url,
    summary: 'A long-poll: stored events, or, without any, the next ones',
    query,
    responses: {
      200: {
        description: 'Events in order, and the cursor for the next poll; no events after the timeout',
        schema: z.object({
          events: z.array(eventSchema),
          cursor: z.string(),
          gap: z.object({ reason: z.string(), cursor: z.string(), resumes: z.string() }).nullable(),
          device: z.string(),
        }),
      },
    },
  },
]

/**
 * Adds `GET /v1/poll`.
 *
 * @returns what answers the polls that wait, and refuses new ones
 */
export function registerPoll(app: FastifyInstance, context: TransportContext): { close(): void } {
  const polls = context.polls ?? new OpenPolls()
  const queries = new QueryCache(query, { maxCursorLength })
  const pollContext: PollContext = { ...context, polls, queries, repeated: new RepeatedPolls(context) }
  app.get(url, (request, reply) => {
    const { gate, push } = context
    // Any page can read the response of a script, so credentials are ignored.
    const admission = { withoutCredentials: push.config.jsonp && asksForScript(request) }
    const caller = gate.admit(request, reply, admission)
    // Without authentication there is no promise to wait for.
    return caller instanceof Promise
      ? caller.then(admitted => poll(request, reply, pollContext, admission, admitted))
      : poll(request, reply, pollContext, admission, caller)
  })
  context.gate.registerOtherMethods(app, { url, allowed: ['GET', 'HEAD'] })
  return polls
}

type PollQuery = z.output<typeof query>

interface PollContext extends TransportContext {
  readonly polls: OpenPolls
  readonly queries: QueryCache<PollQuery>
  readonly repeated: RepeatedPolls
}

function poll(
  request: FastifyRequest,
  reply: FastifyReply,
  context: PollContext,
  admission: Admission,
  caller: Caller,
): void {
  const parameters = context.queries.read(request)
  const { topic: filters, cursor, callback, timeout } = parameters
  if (callback !== undefined && !context.push.config.jsonp)
    throw new ParameterError('callback', 'callback is not available here: push.jsonp is off')
  if (cursor !== undefined && !parseId(cursor))
    throw new ParameterError('cursor', 'cursor must be one that was given here')
  authorizeSubscribe(caller.permissions, filters)
  reply
    .header('cache-control', 'no-store')
    .type(callback === undefined ? 'application/json; charset=utf-8' : scriptType)
  if (request.method === 'HEAD') {
    reply.send()
    return
  }
  // The client may have left during authentication.
  if (request.raw.socket.destroyed) {
    reply.hijack()
    return
  }
  if (context.bodyEncoders) addVary(reply, 'accept-encoding')
  const encoder = context.bodyEncoders?.(request.headers['accept-encoding']?.toString())
  const readmit = context.gate.readmission(request, caller, admission)
  const answered = context.repeated.expect(request, reply, caller.client.address, {
    timeout: timeout * 1000,
    maxCursorLength,
    encoder,
    answer: (cursor, writer) => answerAgain({ ...start, cursor, writer }),
  })
  const writer = new ReplyWriter(reply, encoder)
  const start: PollStart = { context, caller, parameters, cursor, writer, answered, readmit }
  startPoll(start)
  reply.hijack()
}

interface PollStart {
  readonly context: PollContext
  readonly caller: Caller
  readonly parameters: PollQuery
  readonly cursor: string | undefined
  readonly writer: PollWriter
  readonly answered: (cursor: string | undefined) => void
  readonly readmit: () => Caller | Promise<Caller>
}

/** @throws {GatewayError} as `ApiGate.hold`, and `shutting-down` */
function startPoll({ context, caller, parameters, cursor, writer, answered }: PollStart): void {
  const { topic: filters, timeout, json, last, limit, handle, callback, device } = parameters
  new PollResponse(context, {
    ...{ caller, filters, cursor, last, limit, writer, answered },
    polls: context.polls,
    key: handle === undefined ? undefined : keyOf(caller, handle),
    format: pollFormat(callback),
    device: deviceOf(caller.identity, device),
    isNamed: caller.identity.user !== undefined || device !== undefined,
    encode: pollEncoder({ json }),
    timeout: timeout * 1000,
  })
}

/** Answers a poll that is repeated with the cursor of its last response; `false` where `poll` has to say what is wrong. */
function answerAgain(start: PollStart): boolean | Promise<boolean> {
  const { readmit, writer, parameters, context } = start
  // The other context may answer with other headers.
  if (context.isReplaced?.()) return false
  const { permissions } = start.caller
  const answer = (caller: Caller): boolean => {
    // The client may have left during authentication.
    if (writer.body.destroyed) return true
    // Callers with the same permissions share one object.
    if (caller.permissions !== permissions) authorizeSubscribe(caller.permissions, parameters.topic)
    startPoll({ ...start, caller })
    return true
  }
  try {
    const caller = readmit()
    return caller instanceof Promise ? caller.then(answer).catch(() => false) : answer(caller)
  } catch {
    return false
  }
}

/** Polls of different users never replace each other, nor those of different addresses without a user. */
function keyOf({ identity, client }: Caller, handle: string): string {
  return identity.user === undefined ? `address ${client.address} ${handle}` : `user ${identity.user}\n${handle}`
}

/** The encoder of events. Each has a comma before it, so that a response is a concatenation. */
export const pollEncoder = eventEncoders(json => Buffer.from(`,${json}`))

const jsonFormat: PollFormat = { start: '{"events":[', end: endJson }

/** The format of a response. @param callback of JSONP; `undefined` for JSON */
export function pollFormat(callback: string | undefined): PollFormat {
  if (callback === undefined) return jsonFormat
  return { start: scriptStart(callback) + jsonFormat.start, end: end => endJson(end) + scriptEnd }
}

function endJson({ cursor, gap, device }: PollEnd): string {
  return `],"cursor":"${cursor}","gap":${gap === undefined ? 'null' : oneLineJson(gap)},"device":${oneLineJson(device)}}`
}
