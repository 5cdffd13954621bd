import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { GatewayError } from '../base/errors.js'
import type { Caller } from '../http/api-gate.js'
import { readItems, readQuery } from '../http/parameters.js'
import { type Problem, problemBody, sendProblem } from '../http/problem.js'
import { parseId } from '../journal/event.js'
import type { Receipt, ReceiptReport } from '../receipts/receipts.js'
import { type AdmittedRequest, registerBufferedBodyRoutes } from './buffered-body-routes.js'
import type { Operation } from './operation.js'
import { count, deviceName } from './subscribe-query.js'
import { deviceOf } from './subscriptions.js'
import type { Push, TransportContext } from './transport-context.js'
import { readBody } from './work-queue.js'

const url = '/v1/receipts'

/** Receipts of one request. */
const maxReceipts = 1000
/** Receipts of one report. */
const maxListed = 10_000
/** UTF-16 units of each list of a report: the response could be 40 MB otherwise. */
const maxListLength = 2 ** 18
/** In bytes. */
const maxDetailBytes = 1024

const statuses = ['received', 'processed', 'failed'] as const

const isNoId = 'must be the id of an event'

const eventId = z
  .string({ error: ({ input }) => (input === undefined ? 'is missing' : isNoId) })
  .refine(text => parseId(text) !== undefined, isNoId)
  .describe('The id of an event')

const detail = z
  .string()
  .refine(text => Buffer.byteLength(text) <= maxDetailBytes, `must have at most ${maxDetailBytes} bytes`)
  .refine(text => !/\p{Cs}/u.test(text), 'must be valid Unicode')

/** The members of a receipt, as a device sends it. */
export const receiptMembers = {
  id: eventId,
  status: z.enum(statuses, { error: `must be one of ${statuses.join(', ')}` }),
  detail: detail.optional(),
}

const receipt = z.strictObject(receiptMembers)
const receiptCount = `must have 1 to ${maxReceipts} receipts`
// Each element is parsed later, one by one.
const receiptList = z.array(z.unknown()).min(1, receiptCount).max(maxReceipts, receiptCount)

const query = z.object({ device: deviceName.optional() })

const reportQuery = z.object({
  id: eventId,
  limit: count(1, maxListed).default(1000).describe('Maximum number of devices in each list'),
  after: z.string().optional().describe('Lists the devices after this one, in the order of all lists'),
})

const recorded = z.object({
  id: z.string(),
  device: z.string(),
  user: z.string().optional().describe('The user of the device; left out if unknown'),
  status: z.enum(statuses),
  time: z.iso.datetime(),
  detail: z.string().optional(),
})

const problem = z.object({
  type: z.literal('about:blank'),
  status: z.int(),
  title: z.string(),
  detail: z.string(),
  reason: z.string(),
})

const report = z.object({
  id: z.string(),
  topic: z.string(),
  time: z.iso.datetime(),
  requested: z
    .object({
      from: z.union([z.literal('present'), z.array(z.string())]),
      count: z.int().min(0).describe('Number of devices with a requested receipt, listed or not'),
      devices: z.array(z.string()),
      deadline: z.iso.datetime(),
      missed: z
        .array(z.string())
        .optional()
        .describe('The devices without a receipt at the deadline; left out before it'),
    })
    .nullable(),
  written: z.array(z.string()).describe('Devices with a requested receipt to whose connection the event was written'),
  receipts: z.array(recorded.omit({ id: true })),
})

/** `/v1/receipts` */
export const receiptOperations: readonly Operation[] = [
  {
    method: 'post',
    path: url,
    summary: 'Stores the receipts of a device for one event, or for up to a thousand.',
    query,
    body: z.union([receipt, z.strictObject({ receipts: z.array(receipt).min(1).max(maxReceipts) })]),
    responses: {
      200: {
        description: 'No receipt was new',
        schema: z.union([recorded, z.object({ receipts: z.array(recorded) })]),
      },
      201: {
        description: 'Stored; of several, each refused one has a problem in its place',
        schema: z.union([
          recorded,
          z.object({ receipts: z.array(z.union([recorded, z.object({ id: z.string(), problem })])) }),
        ]),
      },
      400: { description: 'A member is invalid; nothing is stored' },
      403: { description: 'No permission for the topic of the event' },
      404: { description: 'The event is unknown or evicted' },
    },
  },
  {
    method: 'get',
    path: url,
    summary: 'The receipts of an event: the requested ones, the devices that it was written to, and the received ones.',
    query: reportQuery,
    responses: {
      200: { description: 'The report', schema: report },
      403: { description: 'No permission for the topic of the event or receipts/<topic>' },
      404: { description: 'The event is unknown or evicted' },
    },
  },
]

/** Adds `POST /v1/receipts` and `GET /v1/receipts`. */
export function registerReceipts(app: FastifyInstance, options: TransportContext): void {
  const { gate, push } = options
  registerBufferedBodyRoutes(app, options, (scope, admitted) => {
    scope.post(url, async (request, reply) => record(admitted(request), reply, options))
  })
  app.get(url, async (request, reply) => sendReport(request, reply, await gate.admit(request, reply), push))
  gate.registerOtherMethods(app, { url, allowed: ['GET', 'POST'], headers: 'authorization, content-type' })
}

export const unknownEvent = {
  status: 404,
  detail: 'The event is unknown or evicted',
  reason: 'unknown-event',
} as const satisfies Problem

/** An event whose topic the caller may not read. */
export const refusedTopic = {
  status: 403,
  // The topic's name would say more than the id does.
  detail: 'The topic of this event is not open to you',
  reason: 'topic-refused',
} as const satisfies Problem

async function record(
  { request, caller, body }: AdmittedRequest,
  reply: FastifyReply,
  { push, queue, bodies }: Pick<TransportContext, 'push' | 'queue' | 'bodies'>,
): Promise<FastifyReply> {
  const { device: named } = readQuery(request, query)
  const parsing = readItems(body, { item: receipt, list: 'receipts', items: receiptList, maxValues: bodies.jsonValues })
  const { items: said, isList } = await readBody(body, caller, queue, parsing)
  const device = deviceOf(caller.identity, named)
  const outcomes: Outcome[] = []
  // In order: several may be of one event.
  const { user } = caller.identity
  for (const { id, ...rest } of said) outcomes.push(await recordOne(id, { ...rest, device, user }, caller, push))
  const isFresh = outcomes.some(outcome => 'fresh' in outcome && outcome.fresh)
  reply.code(isFresh ? 201 : 200).header('cache-control', 'no-store')
  if (isList) return reply.send({ receipts: outcomes.map((outcome, index) => itemOf(said[index]?.id ?? '', outcome)) })
  const [outcome] = outcomes
  if (!outcome) throw new GatewayError('internal-error')
  if ('status' in outcome) return sendProblem(reply, { ...outcome, parameter: 'id' })
  return reply.send(itemOf(said[0]?.id ?? '', outcome))
}

type Outcome = Problem | { readonly receipt: Receipt; readonly fresh: boolean }

/** @throws {GatewayError} rejects as `Receipts.record` */
async function recordOne(
  id: string,
  said: Omit<Receipt, 'time'>,
  { permissions }: Caller,
  { receipts }: Push,
): Promise<Outcome> {
  const topic = await receipts.topicOf(id)
  if (topic === undefined) return unknownEvent
  if (!permissions.mayRead(topic)) return refusedTopic
  return (await receipts.record(id, said)) ?? unknownEvent
}

function itemOf(id: string, outcome: Outcome): object {
  return 'receipt' in outcome ? { id, ...receiptJson(outcome.receipt) } : { id, problem: problemBody(outcome) }
}

export function receiptJson({ device, user, status, time, detail }: Receipt): object {
  return { device, user, status, time: iso(time), detail }
}

async function sendReport(
  request: FastifyRequest,
  reply: FastifyReply,
  { permissions }: Caller,
  { receipts }: Push,
): Promise<FastifyReply> {
  const { id, limit, after } = readQuery(request, reportQuery)
  const found = await receipts.report(id, { limit, after, maxText: maxListLength })
  if (!found) return sendProblem(reply, { ...unknownEvent, parameter: 'id' })
  const { topic } = found.event
  if (!permissions.mayRead(topic) && !permissions.mayRead(`receipts/${topic}`)) {
    return sendProblem(reply, { ...refusedTopic, parameter: 'id' })
  }
  return reply.header('cache-control', 'no-store').send(reportJson(found))
}

function reportJson({ event, requested, written, receipts }: ReceiptReport): object {
  return {
    id: event.id,
    topic: event.topic,
    time: iso(event.time),
    requested: requested ? { ...requested, deadline: iso(requested.deadline) } : null,
    written,
    receipts: receipts.map(receiptJson),
  }
}

function iso(time: number): string {
  return new Date(time).toISOString()
}
