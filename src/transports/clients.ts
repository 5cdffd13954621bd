import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { RequireAdmin } from '../access/administrators.js'
import type { ClientDirectory, ClientSnapshot, FoundClients } from '../base/client-directory.js'
import type { Logger } from '../base/log.js'
import { transports } from '../base/metrics.js'
import type { ApiGate, Caller } from '../http/api-gate.js'
import { ParameterError, readQuery } from '../http/parameters.js'
import { sendProblem } from '../http/problem.js'
import type { Operation } from './operation.js'
import { count, flag } from './subscribe-query.js'

const listUrl = '/v1/clients'
const clientUrl = '/v1/clients/:clientId'

/** Clients of one response. */
const maxListed = 1000

/** Characters of a search text. */
const maxText = 1024

/** Characters of a reason: with the text before it, it fits into a close frame (RFC 6455 §5.5). */
const maxReason = 64

const text = z.string({ error: 'must come once' }).max(maxText, { error: `must have at most ${maxText} characters` })

const connection = text.optional().describe('Only the connection with this id in the log')

const listQuery = z.object({
  search: text.optional().describe('A part of the client id, the user, the user name or the address'),
  prefix: text.optional().describe('The beginning of the client id'),
  user: text.optional().describe('The authenticated user, or the user name of the CONNECT'),
  transport: z
    .enum(transports, { error: `must be one of ${transports.join(', ')}` })
    .optional()
    .describe('Only clients with this transport'),
  connection,
  limit: count(1, maxListed).default(100).describe('Maximum number of listed clients'),
  cursor: z
    .string({ error: 'must come once' })
    .regex(/^[0-9a-z]{0,11}$/, { error: 'must be a cursor of an earlier response' })
    .optional()
    .describe('next of the previous response'),
})

const clientQuery = z.object({ connection })

const reason = z
  .string({ error: 'must come once' })
  .max(maxReason, { error: `must have at most ${maxReason} characters` })
  .refine(value => !/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(value), { error: 'must not have control characters' })
  .optional()
  .describe('Text for the client and the log')

const endQuery = z.object({
  connection,
  reason,
  session: flag().describe('Whether its session at the built-in broker ends, too; also that of an absent client'),
})

const endConnectionQuery = z.object({ connection: text.describe('The id of the connection in the log'), reason })

const wholeCount = z.int().min(0)

const client = z.object({
  clientId: z.string().describe('Empty if the client sent none, and the broker’s is unknown'),
  connection: z.string().describe('The id of the connection in the log'),
  user: z.string().optional().describe('The user whom mqway has authenticated'),
  username: z.string().optional().describe('The user name of the CONNECT, which another broker may not have checked'),
  address: z.string(),
  protocolVersion: z.int().optional().describe('3 is MQTT 3.1, 4 is MQTT 3.1.1, 5 is MQTT 5'),
  transport: z.enum(transports),
  path: z.string().optional().describe('The path of the WebSocket'),
  broker: z.string().describe('embedded, or the addresses of another broker'),
  since: z.iso.datetime(),
  bytesIn: wholeCount.describe('MQTT bytes from the client'),
  bytesOut: wholeCount.describe('MQTT bytes to the client'),
  bufferedBytes: wholeCount.describe('Bytes buffered by mqway in both directions'),
  queue: z
    .object({ messages: wholeCount, bytes: wholeCount })
    .optional()
    .describe('Unacknowledged and waiting messages of its session; only at the built-in broker'),
  subscriptions: wholeCount.optional().describe('Number of its topic filters; only at the built-in broker'),
})

const incomplete = z
  .literal(true)
  .optional()
  .describe('A worker process did not answer in time, so that its clients are left out')

const list = z.object({
  connected: wholeCount.describe('Number of all connected clients, listed or not'),
  clients: z.array(client),
  next: z.string().optional().describe('The cursor of the next page; left out at the end'),
  incomplete,
})

const detailedClient = client.extend({
  filters: z.array(z.string()).optional().describe('At most 1000 of its topic filters; only at the built-in broker'),
})

const connections = z.object({
  clients: z.array(detailedClient).describe('Usually one; one for each broker'),
  incomplete,
})

const ended = z.object({
  disconnected: wholeCount.describe('Number of connections that end'),
  session: z.boolean().describe('Whether a session ends'),
  incomplete,
})

const forbidden = {
  401: { description: 'Only for users' },
  403: {
    description:
      'Only for administrators: users with a rule that has admin: true, or clients on loopback where mqway serves no others',
  },
} as const

const absent = {
  404: { description: 'There is no such client' },
  503: { description: 'A worker process did not answer in time, and the others have no such client' },
} as const

/** `/v1/clients` */
export const clientsOperations: readonly Operation[] = [
  {
    method: 'get',
    path: listUrl,
    summary: 'The connected MQTT clients of all brokers, in the order of connecting.',
    query: listQuery,
    responses: { 200: { description: 'A page of clients', schema: list }, ...forbidden },
  },
  {
    method: 'delete',
    path: listUrl,
    summary: 'Disconnects one connection, whatever its client id.',
    query: endConnectionQuery,
    responses: { 200: { description: 'It ends', schema: ended }, ...forbidden, ...absent },
  },
  {
    method: 'get',
    path: '/v1/clients/{clientId}',
    id: 'getClient',
    summary: 'The connections with a client id, with their topic filters.',
    query: clientQuery,
    responses: { 200: { description: 'The connections', schema: connections }, ...forbidden, ...absent },
  },
  {
    method: 'delete',
    path: '/v1/clients/{clientId}',
    id: 'deleteClient',
    summary: 'Disconnects a client, and ends its session if wanted.',
    query: endQuery,
    responses: { 200: { description: 'It ends', schema: ended }, ...forbidden, ...absent },
  },
]

export interface ClientsRouteOptions {
  /** For pages of the same origin only. */
  readonly gate: ApiGate
  readonly requireAdmin: RequireAdmin
  /** Whether only users are asked for: 401 instead of 403 without credentials. */
  readonly requiresUser: boolean
  readonly clients: ClientDirectory
  /** Ends a session of the built-in broker; returns whether there is one. `undefined` without that broker. */
  readonly endSession: ((clientId: string) => boolean) | undefined
  readonly log: Logger
}

type ClientRequest = FastifyRequest<{ Params: { clientId: string } }>

/** Adds `/v1/clients` and `/v1/clients/<client id>`. */
export function registerClients(app: FastifyInstance, options: ClientsRouteOptions): void {
  const { gate, clients } = options

  app.get(listUrl, async (request, reply) => {
    await admit(request, reply, options)
    const { limit, cursor, ...wanted } = readQuery(request, listQuery)
    const after = cursor ? Number.parseInt(cursor, 36) : undefined
    const page = await clients.list({ wanted, after, limit }, wantedBy(reply))
    return {
      connected: page.connected,
      clients: page.clients.map(describe),
      ...(page.next !== undefined && { next: page.next.toString(36) }),
      ...incompleteOf(page),
    } satisfies z.output<typeof list>
  })

  app.delete(listUrl, async (request, reply) => {
    const caller = await admit(request, reply, options)
    const query = readQuery(request, endConnectionQuery)
    return end(caller, { ...query, session: false }, options, reply)
  })

  app.get(clientUrl, async (request: ClientRequest, reply) => {
    await admit(request, reply, options)
    const query = readQuery(request, clientQuery)
    const found = await clients.find({ ...query, ...request.params }, wantedBy(reply))
    if (found.clients.length === 0) return noClient(reply, found)
    const described = { clients: found.clients.map(describeInDetail), ...incompleteOf(found) }
    return described satisfies z.output<typeof connections>
  })

  app.delete(clientUrl, async (request: ClientRequest, reply) => {
    const caller = await admit(request, reply, options)
    const query = readQuery(request, endQuery)
    const { clientId } = request.params
    if (query.session && !options.endSession)
      throw new ParameterError('session', 'session must be left out: other brokers end their sessions themselves')
    return end(caller, { ...query, clientId }, options, reply)
  })

  gate.registerOtherMethods(app, { url: listUrl, allowed: ['GET', 'HEAD', 'DELETE'] })
  gate.registerOtherMethods(app, { url: clientUrl, allowed: ['GET', 'HEAD', 'DELETE'] })
}

function wantedBy(reply: FastifyReply): () => boolean {
  return () => !reply.raw.destroyed
}

function incompleteOf({ isIncomplete }: { readonly isIncomplete: boolean }): { readonly incomplete?: true } {
  return isIncomplete ? { incomplete: true } : {}
}

async function admit(
  request: FastifyRequest,
  reply: FastifyReply,
  { gate, requireAdmin, requiresUser }: ClientsRouteOptions,
): Promise<Caller> {
  const caller = await gate.admit(request, reply, { requiresUser })
  requireAdmin(caller.client, caller.identity)
  reply.header('cache-control', 'no-store')
  return caller
}

function noClient(reply: FastifyReply, { isIncomplete }: Pick<FoundClients, 'isIncomplete'>): FastifyReply {
  if (!isIncomplete) return sendProblem(reply, { status: 404, detail: 'There is no such client' })
  return sendProblem(reply, { status: 503, detail: 'A worker process did not answer in time' }, { 'retry-after': '5' })
}

interface End {
  readonly clientId?: string
  readonly connection?: string | undefined
  readonly reason?: string | undefined
  readonly session: boolean
}

/** Disconnects clients, and ends a session. */
async function end(
  { identity, client: { address } }: Caller,
  { clientId, connection: id, reason: hint, session }: End,
  { clients, endSession, log }: ClientsRouteOptions,
  reply: FastifyReply,
): Promise<z.output<typeof ended> | FastifyReply> {
  const by = { user: identity.user, peer: address }
  const found = await clients.end({ wanted: { clientId, connection: id }, hint, by }, wantedBy(reply))
  const hasSession = session && clientId !== undefined && endSession?.(clientId) === true
  if (found.clients.length === 0 && !hasSession) return noClient(reply, found)
  if (hasSession) log.warn({ ...by, clientId }, 'an administrator ends a session')
  return { disconnected: found.clients.length, session: hasSession, ...incompleteOf(found) }
}

function describe(found: ClientSnapshot): z.output<typeof client> {
  const { user, username, protocolVersion, path, session } = found
  return {
    clientId: found.clientId,
    connection: found.connection,
    ...(user !== undefined && { user }),
    ...(username !== undefined && { username }),
    address: found.address,
    ...(protocolVersion !== undefined && { protocolVersion }),
    transport: found.transport,
    ...(path !== undefined && { path }),
    broker: found.broker,
    since: new Date(found.since).toISOString(),
    bytesIn: found.bytesIn,
    bytesOut: found.bytesOut,
    bufferedBytes: found.bufferedBytes,
    ...(session && {
      queue: { messages: session.queuedMessages, bytes: session.queuedBytes },
      subscriptions: session.subscriptions,
    }),
  }
}

function describeInDetail(found: ClientSnapshot): z.output<typeof detailedClient> {
  const { session } = found
  return { ...describe(found), ...(session && { filters: [...session.filters] }) }
}
