import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { oneLineJson } from '../base/one-line-json.js'
import type { CouchdbConfig } from '../config/compat.js'
import type { DeliveryOptions } from '../delivery/delivery.js'
import { asksForScript, scriptEnd, scriptStart, scriptType } from '../delivery/jsonp.js'
import { OpenPolls } from '../delivery/open-polls.js'
import { requirePermitted } from '../delivery/permitted.js'
import { answerPassingRefusal, asksForEventStream } from '../delivery/stream-form.js'
import type { Caller } from '../http/api-gate.js'
import { ParameterError, readQuery } from '../http/parameters.js'
import { answerChanges } from './couchdb/changes.js'
import { topicsOf } from './couchdb/database.js'
import { changesQuery, databaseQuery } from './couchdb/query.js'
import { refuse, refuseInCouchdb } from './couchdb/refusals.js'
import { StreamHouses, streamForms } from './couchdb/streams.js'

/** The headers that a page of another origin may send; jQuery.couch names the type of a body that it does not send. */
const allowedHeaders = 'authorization, cache-control, content-type, last-event-id, x-requested-with'

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
  options: DeliveryOptions,
  { prefix, timeout }: CouchdbConfig,
): { close(): void } {
  const polls = new OpenPolls()
  const house = { options, polls, timeout, streams: new StreamHouses(options) }
  const { journal } = options.push
  app.register(async scope => {
    refuseInCouchdb(scope, options)
    const databases = databaseUrls(prefix)
    const changes = `${prefix === '/' ? '' : prefix}/:db/_changes`
    for (const url of databases) {
      scope.get(url, async (request, reply) => {
        const { name, query } = await read(request, reply, options, databaseQuery)
        // All of them are written down, and no other place is known that is one of this database alone.
        const { head } = journal
        return send(reply, { db_name: name, update_seq: head, committed_update_seq: head }, query.callback)
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
    for (const url of [...databases, changes]) registerOthers(scope, options, url)
    if (prefix === '/') return
    // Documents, views and all else that a CouchDB has.
    scope.get(`${prefix}/:db/*`, async (request, reply) => {
      await options.gate.admit(request, reply)
      return refuse(reply, 404, 'not_found', 'missing')
    })
  })
  return polls
}

/** Where pages are served beside it, what has a dot in its name is a file, and what has a slash at its end a directory. */
function databaseUrls(prefix: string): string[] {
  return prefix === '/' ? ['/:db(^[^.]+$)'] : [`${prefix}/:db`, `${prefix}/:db/`]
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
  { gate, push }: DeliveryOptions,
  schema: Schema,
): Promise<Reader<z.output<Schema>>> {
  const { jsonp } = push.config
  // What any page can read is nobody's in particular.
  const caller = await gate.admit(request, reply, { withoutCredentials: jsonp && asksForScript(request) })
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
function registerOthers(scope: FastifyInstance, { gate }: DeliveryOptions, url: string): void {
  const preflight = { methods: 'GET, HEAD', headers: allowedHeaders }
  scope.options(url, async (request, reply) => gate.preflight(request, reply, preflight))
  scope.route({
    method: ['POST', 'PUT', 'PATCH', 'DELETE'],
    url,
    handler: async (request, reply) => {
      gate.setOriginHeaders(request, reply)
      return refuse(reply.header('allow', 'GET, HEAD, OPTIONS'), 405, 'method_not_allowed', 'Only GET,HEAD allowed')
    },
  })
}
