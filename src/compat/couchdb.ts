import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { oneLineJson } from '../base/one-line-json.js'
import type { CouchdbConfig } from '../config/compat.js'
import type { Caller, OtherMethods } from '../http/api-gate.js'
import { ParameterError, parseJsonBody, readQuery } from '../http/parameters.js'
import { filterDepthProblem, maxFilterLevels, topicFilterProblem } from '../topics/topic-syntax.js'
import { registerBufferedBodyRoutes } from '../transports/buffered-body-routes.js'
import { asksForScript, scriptEnd, scriptStart, scriptType } from '../transports/jsonp.js'
import { OpenPolls } from '../transports/poll/open-polls.js'
import { answerPassingRefusal, asksForEventStream } from '../transports/sse/stream-format.js'
import { authorizeSubscribe } from '../transports/subscriptions.js'
import type { TransportContext } from '../transports/transport-context.js'
import { answerChanges } from './couchdb/changes.js'
import { changesQuery, databaseQuery, postedChangesQuery } from './couchdb/query.js'
import { refuse, setCouchdbErrorHandler } from './couchdb/refusals.js'
import { streamContexts, streamForms } from './couchdb/streams.js'
import { addReaderStrategy, databaseUrls } from './couchdb/urls.js'

/** Request headers for pages of other origins; jQuery.couch sends `Content-Type` also without a body. */
const allowedHeaders = 'authorization, cache-control, content-type, last-event-id, x-requested-with'

/** The configuration, and the paths that are not databases. */
export interface CouchdbOptions extends CouchdbConfig {
  /** Names of the directories with pages. Default: none. */
  readonly directories?: ReadonlySet<string>
}

interface DatabaseRequest<Query> {
  readonly caller: Caller
  readonly name: string
  readonly filters: readonly string[]
  readonly query: Query
}

/**
 * Adds the two URLs of CouchDB that pages read changes with: `GET /<db>` and `GET /<db>/_changes`.
 *
 * @returns closes waiting requests with a response, and refuses new ones
 */
export function registerCouchdb(
  app: FastifyInstance,
  options: TransportContext,
  { prefix, timeout, directories = new Set() }: CouchdbOptions,
): { close(): void } {
  const polls = options.polls ?? new OpenPolls()
  const context = { options, polls, timeout, contextOf: streamContexts(options) }
  const { journal } = options.push
  if (prefix === '/') addReaderStrategy(app, directories)
  app.register(async scope => {
    setCouchdbErrorHandler(scope, options)
    const databases = databaseUrls(prefix)
    const changes = `${prefix === '/' ? '' : prefix}/:db/_changes`
    for (const { url, constraints } of databases) {
      scope.get(url, { constraints }, async (request, reply) => {
        const { name, query } = await read(request, reply, options, databaseQuery)
        // Everything up to the head is stored; there is no numbering per database.
        const { head } = journal
        const information = {
          db_name: name,
          update_seq: head,
          committed_update_seq: head,
          instance_start_time: startTime,
        }
        return send(reply, information, query.callback)
      })
    }
    scope.get(changes, async (request, reply) => {
      try {
        return answerChanges(request, reply, context, await read(request, reply, options, changesQuery))
      } catch (error) {
        if (!isEventSource(request) || !asksForEventStream(request)) throw error
        const { headers, controlEvents } = streamForms.eventsource
        return answerPassingRefusal(request, reply, error, {
          ...options,
          headers,
          controlEvents: controlEvents(options),
        })
      }
    })
    registerBufferedBodyRoutes(scope, options, (inner, admitted) => {
      inner.post(changes, async (request, reply) => {
        const { caller, body } = admitted(request)
        requireNoSelection(body, options.bodies.jsonValues)
        return answerChanges(request, reply, context, readAs(caller, request, options, postedChangesQuery))
      })
    })
    for (const { url, constraints } of databases) refuseOthers({ url, constraints, allowed: ['GET', 'HEAD'] })
    refuseOthers({ url: changes, allowed: ['GET', 'HEAD', 'POST'] })
    function refuseOthers(route: OtherMethods): void {
      const sentence = `Only ${route.allowed.join(',')} allowed`
      options.gate.registerOtherMethods(scope, {
        ...{ ...route, headers: allowedHeaders },
        refuse: reply => refuse(reply, 405, 'method_not_allowed', sentence),
      })
    }
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

/** The value that CouchDB 3 gives for every database; clients of CouchDB 1 need it, and stop when it changes. */
const startTime = '0'

const noReplication =
  'there are no revisions, checkpoints or documents of their own here, and so no replication: read GET /<db>/_changes?include_docs=true'

/** The reason in a 404 for documents, views and other resources of CouchDB. */
function reasonOf({ method, query }: FastifyRequest): string {
  const asksForRevisions = typeof query === 'object' && query !== null && ('open_revs' in query || 'revs' in query)
  return method === 'GET' && !asksForRevisions ? 'missing' : noReplication
}

/** @throws {ParameterError} if a body selects some of the changes: to ignore that would give a wrong response */
function requireNoSelection(body: Buffer, maxValues: number): void {
  const value = body.length === 0 ? {} : parseJsonBody(body, maxValues)
  if (typeof value !== 'object' || value === null) throw new ParameterError('', 'The body must be a JSON object')
  const selection = ['doc_ids', 'selector'].find(name => name in value)
  if (selection !== undefined) throw new ParameterError(selection, `${selection} is not available here`)
}

/** Whether the query asks for `feed=eventsource`. */
function isEventSource({ query }: FastifyRequest): boolean {
  const feed: unknown = typeof query === 'object' && query !== null && 'feed' in query ? query.feed : undefined
  return (Array.isArray(feed) ? feed.at(-1) : feed) === 'eventsource'
}

/** Admits a request, and checks its query and permissions. */
async function read<Schema extends z.ZodType<{ callback?: string | undefined }>>(
  request: FastifyRequest,
  reply: FastifyReply,
  options: TransportContext,
  schema: Schema,
): Promise<DatabaseRequest<z.output<Schema>>> {
  const { gate, push } = options
  const { jsonp } = push.config
  // Any page can read a JSONP response, so credentials do not count.
  const caller = await gate.admit(request, reply, { withoutCredentials: jsonp && asksForScript(request) })
  return readAs(caller, request, options, schema)
}

/** Checks the query and permissions of an admitted request. */
function readAs<Schema extends z.ZodType<{ callback?: string | undefined }>>(
  caller: Caller,
  request: FastifyRequest,
  { push }: TransportContext,
  schema: Schema,
): DatabaseRequest<z.output<Schema>> {
  const { jsonp } = push.config
  const query = readQuery(request, schema)
  if (query.callback !== undefined && !jsonp)
    throw new ParameterError('callback', 'callback is not available here: push.jsonp is off')
  const name = nameIn(request)
  const filters = [topicsOf(name)]
  authorizeSubscribe(caller.permissions, filters)
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

/**
 * The topic filter of a database: the topic of its name, and all topics below it.
 *
 * @param name as in the path, decoded; it may have slashes
 * @throws {ParameterError} if no topic can begin with it, or CouchDB reserves the name
 */
function topicsOf(name: string): string {
  const filter = `${name}/#`
  const problem = problemOf(name) ?? topicFilterProblem(filter)
  if (problem !== undefined) throw new ParameterError('database', `The name of a database ${problem}`)
  // The name has one level less than the filter.
  if (filterDepthProblem(filter) !== undefined) {
    throw new ParameterError('database', `The name of a database is a topic of at most ${maxFilterLevels - 1} levels`)
  }
  return filter
}

function problemOf(name: string): string | undefined {
  if (name === '') return 'must not be empty'
  if (name.startsWith('_')) return 'must not begin with _'
  if (/[+#]/.test(name)) return 'is the beginning of a topic, without the wildcards + and #'
  return undefined
}
