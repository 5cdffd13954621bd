import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { oneLineJson } from '../base/one-line-json.js'
import type { CouchdbConfig } from '../config/compat.js'
import type { Caller } from '../http/api-gate.js'
import { ParameterError, parseJsonBody, readQuery } from '../http/parameters.js'
import { requirePermitted } from '../transports/authorize-subscribe.js'
import { registerKeptBodyRoutes } from '../transports/buffered-body-routes.js'
import { asksForScript, scriptEnd, scriptStart, scriptType } from '../transports/jsonp.js'
import { OpenPolls } from '../transports/poll/open-polls.js'
import { answerPassingRefusal, asksForEventStream } from '../transports/sse/stream-form.js'
import type { TransportContext } from '../transports/transport-context.js'
import { answerChanges } from './couchdb/changes.js'
import { topicsOf } from './couchdb/database.js'
import { changesQuery, databaseQuery, postedChangesQuery } from './couchdb/query.js'
import { refuse, refuseInCouchdb } from './couchdb/refusals.js'
import { StreamContexts, streamForms } from './couchdb/streams.js'
import { addReaderStrategy, type DatabaseUrl, databaseUrls } from './couchdb/urls.js'

/** The headers that a page of another origin may send; jQuery.couch names the type of a body that it does not send. */
const allowedHeaders = 'authorization, cache-control, content-type, last-event-id, x-requested-with'

/** The configuration, and what is beside the databases. */
export interface CouchdbOptions extends CouchdbConfig {
  /** Names of directories that pages are served of. Default: none. */
  readonly directories?: ReadonlySet<string>
}

/** Somebody who was let in, and may listen to a database. */
interface Reader<Query> {
  readonly caller: Caller
  readonly name: string
  readonly filters: readonly string[]
  readonly query: Query
}

/**
 * Adds the two URLs of CouchDB that its pages listen with: `GET /<db>` and `GET /<db>/_changes`.
 *
 * @returns what answers the requests that wait, and refuses new ones
 */
export function registerCouchdb(
  app: FastifyInstance,
  options: TransportContext,
  { prefix, timeout, directories = new Set() }: CouchdbOptions,
): { close(): void } {
  const polls = new OpenPolls()
  const house = { options, polls, timeout, streams: new StreamContexts(options) }
  const { journal } = options.push
  if (prefix === '/') addReaderStrategy(app, directories)
  app.register(async scope => {
    refuseInCouchdb(scope, options)
    const databases = databaseUrls(prefix)
    const changes = `${prefix === '/' ? '' : prefix}/:db/_changes`
    for (const { url, constraints } of databases) {
      scope.get(url, { constraints }, async (request, reply) => {
        const { name, query } = await read(request, reply, options, databaseQuery)
        // All of them are written down, and no other place is known that is one of this database alone.
        const { head } = journal
        const about = { db_name: name, update_seq: head, committed_update_seq: head, instance_start_time: startTime }
        return send(reply, about, query.callback)
      })
    }
    scope.get(changes, async (request, reply) => {
      try {
        return answerChanges(request, reply, house, await read(request, reply, options, changesQuery))
      } catch (error) {
        if (!isEventSource(request) || !asksForEventStream(request)) throw error
        const { headers, language } = streamForms.eventsource
        return answerPassingRefusal(request, reply, error, { ...options, headers, language: language(options) })
      }
    })
    registerKeptBodyRoutes(scope, options, (inner, admitted) => {
      inner.post(changes, async (request, reply) => {
        const { caller, body } = admitted(request)
        requireNoSelection(body, options.bodies.jsonValues)
        return answerChanges(request, reply, house, readAs(caller, request, options, postedChangesQuery))
      })
    })
    for (const { url, constraints } of databases)
      registerOthers(scope, options, { url, constraints, allowed: 'GET, HEAD' })
    registerOthers(scope, options, { url: changes, constraints: {}, allowed: 'GET, HEAD, POST' })
    if (prefix === '/') return
    scope.route({
      method: ['GET', 'POST', 'PUT', 'DELETE'],
      url: `${prefix}/:db/*`,
      handler: async (request, reply) => {
        await options.gate.admit(request, reply)
        return refuse(reply, 404, 'not_found', reasonOf(request))
      },
    })
  })
  return polls
}

/** As CouchDB 3 says it of every database; clients of CouchDB 1 want one, and stop where it changes. */
const startTime = '0'

/** The answer to what replication asks for. */
const notThere =
  'there are no revisions, checkpoints or documents of their own here, and so no replication: read GET /<db>/_changes?include_docs=true'

/** The reason for which a document, a view or whatever else a CouchDB has is not there. */
function reasonOf({ method, query }: FastifyRequest): string {
  const isOfRevisions = typeof query === 'object' && query !== null && ('open_revs' in query || 'revs' in query)
  return method === 'GET' && !isOfRevisions ? 'missing' : notThere
}

/** @throws {ParameterError} where a body asks for some of the changes only: to ignore that would be a wrong answer */
function requireNoSelection(body: Buffer, maxValues: number): void {
  const value = body.length === 0 ? {} : parseJsonBody(body, maxValues)
  if (typeof value !== 'object' || value === null) throw new ParameterError('', 'The body must be a JSON object')
  const selection = ['doc_ids', 'selector'].find(name => name in value)
  if (selection !== undefined) throw new ParameterError(selection, `${selection} is not available here`)
}

/** Whether the feed that is asked for is one for an EventSource. */
function isEventSource({ query }: FastifyRequest): boolean {
  const feed: unknown = typeof query === 'object' && query !== null && 'feed' in query ? query.feed : undefined
  return (Array.isArray(feed) ? feed.at(-1) : feed) === 'eventsource'
}

/** Lets somebody in who may listen to what they ask for. */
async function read<Schema extends z.ZodType<{ callback?: string | undefined }>>(
  request: FastifyRequest,
  reply: FastifyReply,
  options: TransportContext,
  schema: Schema,
): Promise<Reader<z.output<Schema>>> {
  const { gate, push } = options
  const { jsonp } = push.config
  // What any page can read is nobody's in particular.
  const caller = await gate.admit(request, reply, { withoutCredentials: jsonp && asksForScript(request) })
  return readAs(caller, request, options, schema)
}

/** What somebody asks for who was let in. */
function readAs<Schema extends z.ZodType<{ callback?: string | undefined }>>(
  caller: Caller,
  request: FastifyRequest,
  { push }: TransportContext,
  schema: Schema,
): Reader<z.output<Schema>> {
  const { jsonp } = push.config
  const query = readQuery(request, schema)
  if (query.callback !== undefined && !jsonp)
    throw new ParameterError('callback', 'callback is not available here: push.jsonp is off')
  const name = nameIn(request)
  const filters = [topicsOf(name)]
  requirePermitted(caller.permissions, filters)
  return { caller, name, filters, query }
}

function nameIn({ params }: FastifyRequest): string {
  return typeof params === 'object' && params !== null && 'db' in params ? String(params.db) : ''
}

function send(reply: FastifyReply, value: object, callback: string | undefined): FastifyReply {
  const json = oneLineJson(value)
  const body = callback === undefined ? json : scriptStart(callback) + json + scriptEnd
  return reply
    .header('cache-control', 'no-store')
    .type(callback === undefined ? 'application/json; charset=utf-8' : scriptType)
    .send(`${body}\n`)
}

/** There is nothing to write here; pages of other origins may ask what they may send. */
function registerOthers(
  scope: FastifyInstance,
  { gate }: TransportContext,
  { url, constraints, allowed }: DatabaseUrl & { readonly allowed: string },
): void {
  const preflight = { methods: allowed, headers: allowedHeaders }
  scope.options(url, { constraints }, async (request, reply) => gate.preflight(request, reply, preflight))
  const names = allowed.split(', ')
  scope.route({
    method: ['POST', 'PUT', 'PATCH', 'DELETE'].filter(method => !names.includes(method)),
    url,
    constraints,
    handler: async (request, reply) => {
      gate.setOriginHeaders(request, reply)
      const sentence = `Only ${names.join(',')} allowed`
      return refuse(reply.header('allow', `${allowed}, OPTIONS`), 405, 'method_not_allowed', sentence)
    },
  })
}
