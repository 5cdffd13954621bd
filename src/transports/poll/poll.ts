import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Permissions } from '../../access/topic-rules.js'
import { isUserName } from '../../base/identity.js'
import type { Admission, Caller } from '../../http/api-gate.js'
import { ParameterError } from '../../http/parameters.js'
import { QueryCache } from '../../http/query-cache.js'
import { parseId } from '../../journal/event.js'
import { requirePermitted } from '../authorize-subscribe.js'
import { registerOtherMethods } from '../buffered-body-routes.js'
import { deviceOf } from '../device.js'
import { eventSchema } from '../event-schema.js'
import { asksForScript, callbackPattern, scriptType } from '../jsonp.js'
import type { Operation } from '../operation.js'
import { count, longestCursor, subscribeFields } from '../subscribe-query.js'
import type { TransportContext } from '../transport-context.js'
import { OpenPolls } from './open-polls.js'
import { pollEncoder, pollForm } from './poll-encoding.js'
import { PollResponse } from './poll-response.js'
import { type PollWriter, ReplyWriter } from './poll-writer.js'
import { RepeatedRequests, type Repetition } from './repeated-requests.js'

const url = '/v1/poll'

const query = z.object({
  ...subscribeFields,
  timeout: count(0, 60).default(25).describe('Seconds to wait for something; 0 for an answer at once'),
  limit: count(1, 1000).default(100).describe('Events in one answer; what is retained does not count'),
  handle: z
    .string()
    .refine(isUserName, 'must have 1 to 255 bytes, and no control characters')
    .optional()
    .describe(
      'A name of the one who polls: a newer poll with it ends the one before, which is answered with no events',
    ),
  callback: z
    .string()
    .regex(callbackPattern, 'must have 1 to 128 letters, digits, and . _ [ ]')
    .optional()
    .describe(
      'A function that a script calls with the answer (JSONP), where push.jsonp is on; nobody is asked who they are',
    ),
})

/** `GET /v1/poll` */
export const pollOperations: readonly Operation[] = [
  {
    method: 'get',
    path: url,
    summary: 'A long-poll: what is there, or, where that is nothing, what comes next',
    query,
    responses: {
      200: {
        description: 'Events in order, and the cursor for the next poll; no events when the time was up',
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
export function registerPoll(app: FastifyInstance, options: TransportContext): { close(): void } {
  const polls = new OpenPolls()
  const queries = new QueryCache(query, { longestCursor })
  const repeated = new RepeatedRequests(options)
  const house: PollHouse = { options, polls, queries, repeated }
  app.get(url, (request, reply) => {
    const { gate, push } = options
    // What any page can read is nobody's in particular.
    const admission = { withoutCredentials: push.config.jsonp && asksForScript(request) }
    const caller = gate.admit(request, reply, admission)
    // Where nobody has to be asked, there is nothing to wait for.
    return caller instanceof Promise
      ? caller.then(known => poll(request, reply, house, admission, known))
      : poll(request, reply, house, admission, caller)
  })
  registerOtherMethods(app, { gate: options.gate, url, allowed: ['GET', 'HEAD'], headers: 'authorization' })
  return polls
}

type PollQuery = z.output<typeof query>

/** What all polls share. */
interface PollHouse {
  readonly options: TransportContext
  readonly polls: OpenPolls
  readonly queries: QueryCache<PollQuery>
  readonly repeated: RepeatedRequests
}

function poll(
  request: FastifyRequest,
  reply: FastifyReply,
  house: PollHouse,
  admission: Admission,
  caller: Caller,
): void {
  const given = house.queries.read(request)
  const { topic: filters, cursor, callback, timeout } = given
  if (callback !== undefined && !house.options.push.config.jsonp)
    throw new ParameterError('callback', 'callback is not available here: push.jsonp is off')
  if (cursor !== undefined && !parseId(cursor))
    throw new ParameterError('cursor', 'cursor must be one that was given here')
  requirePermitted(caller.permissions, filters)
  reply
    .header('cache-control', 'no-store')
    .type(callback === undefined ? 'application/json; charset=utf-8' : scriptType)
  if (request.method === 'HEAD') {
    reply.send()
    return
  }
  // The client may have gone while it was found out who it is.
  if (request.raw.socket.destroyed) {
    reply.hijack()
    return
  }
  begin(house, caller, given, cursor, new ReplyWriter(reply))
  const readmit = house.options.gate.readmission(request, caller, admission)
  const ask = askAgain(house, given, readmit, caller.permissions)
  house.repeated.expect(request, reply, caller.client.address, { timeout: timeout * 1000, longestCursor, ask })
  reply.hijack()
}

/** @throws {Ending} as `ApiGate.hold`, and `shutting-down` */
function begin(
  { options, polls }: PollHouse,
  caller: Caller,
  given: PollQuery,
  cursor: string | undefined,
  wire: PollWriter,
): void {
  const { topic: filters, timeout, json, last, limit, handle, callback, device } = given
  const key = handle === undefined ? undefined : keyOf(caller, handle)
  // Before the newer one counts: who may have one connection may have one poll after the other.
  polls.makeRoom(key)
  const made = new PollResponse(options, {
    caller,
    filters,
    cursor,
    last,
    limit,
    form: pollForm(callback),
    wire,
    device: deviceOf(caller.identity, device),
    isNamed: caller.identity.user !== undefined || device !== undefined,
    encode: pollEncoder({ json, callback }),
    timeout: timeout * 1000,
    over: () => polls.delete(made, key),
  })
  polls.add(made, key)
}

/** Answers a poll that came once more, with another cursor. What is wrong with it is said by `poll`. */
function askAgain(
  house: PollHouse,
  given: PollQuery,
  readmit: () => Caller | Promise<Caller>,
  permissions: Permissions,
): Repetition['ask'] {
  const answer = (caller: Caller, cursor: string, wire: PollWriter): boolean => {
    // The client may have gone while it was found out who it is.
    if (wire.body.destroyed) return true
    if (!parseId(cursor)) return false
    // Those who may do the same have one object, and may as before.
    if (caller.permissions !== permissions) requirePermitted(caller.permissions, given.topic)
    begin(house, caller, given, cursor, wire)
    return true
  }
  return (cursor, wire) => {
    try {
      const caller = readmit()
      if (!(caller instanceof Promise)) return answer(caller, cursor, wire)
      return caller.then(known => answer(known, cursor, wire)).catch(() => false)
    } catch {
      return false
    }
  }
}

/** Polls of different people never replace each other; of people who are not known, those of different addresses. */
function keyOf({ identity, client }: Caller, handle: string): string {
  return identity.user === undefined ? `address ${client.address} ${handle}` : `user ${identity.user}\n${handle}`
}
