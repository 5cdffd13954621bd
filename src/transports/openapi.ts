import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { version } from '../base/version.js'
import { clientsOperations } from './clients.js'
import { connectionsOperations } from './connections.js'
import { dashboardOperations } from './dashboard.js'
import { eventSchema } from './event-json.js'
import type { Operation, OperationResponse } from './operation.js'
import { pollOperations } from './poll/poll.js'
import { presenceOperations } from './presence.js'
import { publishOperations } from './publish.js'
import { receiptOperations } from './receipts.js'
import { requestOperations } from './request.js'
import { socketOperations } from './socket/socket.js'
import { eventsOperations } from './sse/sse.js'
import type { TransportContext } from './transport-context.js'

const url = '/v1/openapi.json'

/** `GET /v1/openapi.json` */
export const openApiOperations: readonly Operation[] = [
  {
    method: 'get',
    path: url,
    summary: 'This description.',
    responses: { 200: { description: 'An OpenAPI 3.1 document', schema: z.looseObject({ openapi: z.string() }) } },
  },
]

/** Adds `GET /v1/openapi.json`. The document is made at the first request, which takes some milliseconds. */
export function registerOpenApi(app: FastifyInstance, { gate }: Pick<TransportContext, 'gate'>): void {
  let made: Buffer | undefined
  app.get(url, async (request, reply) => {
    await gate.admit(request, reply)
    made ??= Buffer.from(JSON.stringify(describeApi([...operations, ...openApiOperations])))
    return reply.header('cache-control', 'no-cache').type('application/json; charset=utf-8').send(made)
  })
  gate.registerOtherMethods(app, { url, allowed: ['GET', 'HEAD'] })
}

/** A problem (RFC 9457). */
const problem = z
  .looseObject({
    type: z.literal('about:blank'),
    title: z.string(),
    status: z.int(),
    detail: z.string().optional().describe('A sentence'),
    reason: z.string().optional().describe('The reason, as in the log and the metrics'),
    parameter: z.string().optional().describe('The invalid query parameter, header or member of the body'),
  })
  .describe('RFC 9457')

const problemReference = { $ref: '#/components/schemas/Problem' }

const eventReference = { $ref: '#/components/schemas/Event' }

/** Describes the API as an OpenAPI 3.1 document. */
export function describeApi(operations: readonly Operation[]): object {
  const paths: Record<string, Record<string, object>> = {}
  for (const operation of operations) {
    paths[operation.path] = { ...paths[operation.path], [operation.method]: describeOperation(operation) }
  }
  return {
    openapi: '3.1.1',
    info: {
      title: 'mqway',
      version,
      description: 'MQTT topics over HTTP. Topic filters, events, cursors and errors are explained in PROTOCOL.md.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    // Any of them, or none, depending on `access`.
    security: [{}, { bearer: [] }, { basic: [] }, { ticket: [] }],
    paths,
    components: {
      schemas: { Event: toSchema(eventSchema), Problem: toSchema(problem) },
      responses: {
        Problem: {
          description:
            'Refused: not authenticated (401), no permission (403), too many requests (429), or temporarily unavailable (503)',
          headers: {
            'retry-after': {
              description: 'Seconds until another attempt may succeed',
              schema: { type: 'integer', minimum: 1 },
            },
          },
          content: { 'application/problem+json': { schema: problemReference } },
        },
      },
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' },
        basic: { type: 'http', scheme: 'basic' },
        ticket: {
          type: 'apiKey',
          in: 'query',
          name: 'ticket',
          description:
            'Works once: for EventSource and WebSocket, which cannot send headers. POST /v1/tickets issues it.',
        },
      },
    },
  }
}

function describeOperation({ method, path, id, summary, query, headers, body, rawBody, responses }: Operation): object {
  const parameters = [...pathParameters(path), ...queryParameters(query), ...headerParameters(headers)]
  const content = {
    ...(body && { 'application/json': { schema: toSchema(body) } }),
    ...(rawBody !== undefined && rawContent(rawBody)),
  }
  return {
    operationId: id ?? operationId(method, path),
    summary,
    ...(parameters.length > 0 && { parameters }),
    ...(Object.keys(content).length > 0 && { requestBody: { required: rawBody === undefined, content } }),
    responses: {
      ...Object.fromEntries(
        Object.entries(responses).map(([status, response]) => [status, describeResponse(Number(status), response)]),
      ),
      default: { $ref: '#/components/responses/Problem' },
    },
  }
}

/** `GET /v1/connections/{connection}` is `getConnections`. */
function operationId(method: string, path: string): string {
  const words = path.split(/[^A-Za-z]+/).filter(word => word !== '' && word !== 'v' && !path.includes(`{${word}}`))
  return method + words.map(word => word.charAt(0).toUpperCase() + word.slice(1)).join('')
}

function pathParameters(path: string): object[] {
  return [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }))
}

function queryParameters(query: z.ZodType | undefined): object[] {
  if (!query) return []
  const { properties = {}, required = [] } = toSchema(query)
  return Object.entries(properties).map(([name, described]) => {
    const { description, ...schema } = typeof described === 'object' ? described : {}
    return {
      name,
      in: 'query',
      required: required.includes(name),
      ...(description !== undefined && { description }),
      schema,
    }
  })
}

function headerParameters(headers: Operation['headers'] = {}): object[] {
  return Object.entries(headers).map(([name, description]) => ({
    name,
    in: 'header',
    required: false,
    description,
    schema: { type: 'string' },
  }))
}

/** A body of any type. Both types are listed, because generated clients write a body without a type as JSON. */
function rawContent(description: string): object {
  return {
    'text/plain': { schema: { type: 'string', description } },
    'application/octet-stream': { schema: { type: 'string', format: 'binary', description } },
  }
}

function describeResponse(status: number, { headers, ...response }: OperationResponse): object {
  const described = describeContent(status, response)
  if (!headers) return described
  const named = Object.entries(headers).map(([name, description]) => [
    name,
    { description, schema: { type: 'string' } },
  ])
  return { ...described, headers: Object.fromEntries(named) }
}

function describeContent(status: number, { description, type, schema }: OperationResponse): object {
  if (schema) return { description, content: { [type ?? 'application/json']: { schema: toSchema(schema) } } }
  if (status >= 400 && type !== 'text/plain')
    return { description, content: { 'application/problem+json': { schema: problemReference } } }
  return { description, ...(type !== undefined && { content: { [type]: { schema: { type: 'string' } } } }) }
}

type JsonSchema = z.core.JSONSchema.BaseSchema

/** A schema as JSON Schema 2020-12, the dialect of OpenAPI 3.1. */
function toSchema(schema: z.ZodType): JsonSchema {
  const { $schema, ...described } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema, path }) => adjust(zodSchema, jsonSchema, path.length > 0),
  })
  return described
}

/** Refers to the schema of events, removes the bounds that every number has, and adds defaults. */
function adjust(zodSchema: z.core.$ZodTypes, jsonSchema: JsonSchema, isInside: boolean): void {
  if (zodSchema === eventSchema && isInside) {
    for (const key of Object.keys(jsonSchema)) delete jsonSchema[key]
    Object.assign(jsonSchema, eventReference)
    return
  }
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum
  const { def } = zodSchema._zod
  if (def.type === 'default') jsonSchema.default ??= def.defaultValue as JsonSchema['default']
}

/** All routes, in the order in which a person would read them. */
export const operations: readonly Operation[] = [
  ...eventsOperations,
  ...pollOperations,
  ...socketOperations,
  ...connectionsOperations,
  ...publishOperations,
  ...requestOperations,
  ...receiptOperations,
  ...presenceOperations,
  ...clientsOperations,
  ...dashboardOperations,
]
