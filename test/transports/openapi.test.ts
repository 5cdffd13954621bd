import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { LocalClients } from '../../src/base/client-directory.js'
import { ConnectedClients } from '../../src/base/connected-clients.js'
import { TimeSlicer } from '../../src/base/time-slicer.js'
import { decodeMessageProperties, encodeProperties } from '../../src/mqtt/properties.js'
import { PresenceRegistry } from '../../src/presence/presence-registry.js'
import { Requests } from '../../src/sources/requests.js'
import { ResponseInbox } from '../../src/sources/response-inbox.js'
import { registerClients } from '../../src/transports/clients.js'
import { registerConnections } from '../../src/transports/connections.js'
import { registerDashboard } from '../../src/transports/dashboard.js'
import { registerOpenApi } from '../../src/transports/openapi.js'
import { registerPoll } from '../../src/transports/poll/poll.js'
import { registerPresence } from '../../src/transports/presence.js'
import { registerPublish } from '../../src/transports/publish.js'
import { registerReceipts } from '../../src/transports/receipts.js'
import { registerRequest } from '../../src/transports/request.js'
import { registerEvents } from '../../src/transports/sse/sse.js'
import { startTestGateway } from '../helpers/gateway.js'
import { type Rig, startRig } from './rig.js'

interface Parameter {
  readonly name: string
  readonly in: string
  readonly required: boolean
  readonly description?: string
  readonly schema: Readonly<Record<string, unknown>>
}

interface Described {
  readonly operationId: string
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: { readonly content: Readonly<Record<string, object>> }
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, { schema: object }>> }>>
}

interface Document {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Described>>>>
  readonly components: Readonly<Record<string, Readonly<Record<string, object>>>>
}

/** Has members refused that are not described: a description may be silent about what is to come, and a test may not. */
function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(strict)
  if (typeof schema !== 'object' || schema === null) return schema
  const entries = Object.entries(schema).map(([name, value]) => [name, strict(value)])
  const made = Object.fromEntries(entries)
  return made.type === 'object' && made.properties ? { additionalProperties: false, ...made } : made
}

function operationIn({ paths }: Document, method: string, path: string): Described {
  const operation = paths[path]?.[method]
  if (!operation) throw new Error(`${method} ${path} is not described`)
  return operation
}

/** What checks an answer of this status. */
function checkAnswer(
  document: Document,
  method: string,
  path: string,
  status: number,
  type = 'application/json',
): ValidateFunction {
  const { responses } = operationIn(document, method, path)
  const content = responses[status]?.content ?? { [type]: { schema: { $ref: '#/components/schemas/Problem' } } }
  const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true })
  return ajv.compile({ ...(strict(content[type]?.schema) as object), components: strict(document.components) })
}

describe('GET /v1/openapi.json', () => {
  let rig: Rig
  let document: Document
  const presence = new PresenceRegistry({ grace: 0 })
  const routes = new Set<string>()
  const clients = new ConnectedClients(new TimeSlicer())
  const inbox = new ResponseInbox()
  const requests = new Requests({
    source: {
      receiveResponses: async () => {},
      publish: async ({ properties = Buffer.alloc(0) }) => {
        const { responseTopic: topic = '' } = decodeMessageProperties(properties)
        inbox.deliver({ topic, payload: Buffer.from('ok'), qos: 0, retain: false, properties })
        return undefined
      },
    },
    ...{ inbox, journal: { watch: () => () => {} } },
  })
  beforeAll(async () => {
    rig = await startRig({
      parts: { presence },
      register: (app, options) => {
        app.addHook('onRoute', ({ url }) => void routes.add(url.replace(/:(\w+)/g, '{$1}')))
        registerEvents(app, options)
        registerPoll(app, options)
        registerConnections(app, options)
        registerPublish(app, options)
        registerReceipts(app, options)
        registerRequest(app, { ...options, requests })
        registerPresence(app, options)
        registerClients(app, {
          ...options,
          clients: new LocalClients(clients, options.log),
          requireAdmin: () => {},
          requiresUser: false,
          endSession: undefined,
        })
        registerDashboard(app, {
          ...options,
          requireAdmin: () => {},
          requiresUser: false,
          readMetrics: async () => [],
          checkHealth: async () => ({ isReady: true, detail: undefined, brokers: [] }),
          topics: undefined,
          facts: { maxConnections: 1, maxEvents: undefined },
        })
        registerOpenApi(app, options)
      },
    })
    document = JSON.parse(await (await fetch(`${rig.url}/v1/openapi.json`)).text())
  })
  afterAll(async () => {
    await rig.close()
    presence.close()
  })
  const operations = () =>
    Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
    )
  const checkOf = (method: string, path: string, status: number, type?: string): ValidateFunction =>
    checkAnswer(document, method, path, status, type)

  it('answers a valid OpenAPI 3.1 document', async () => {
    const response = await fetch(`${rig.url}/v1/openapi.json`)
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/json; charset=utf-8'])
    const result = await new Validator().validate(JSON.parse(await response.text()))
    expect(result).toEqual({ valid: true })
    expect(document.openapi).toBe('3.1.1')
  })

  it('describes each route that there is, and the socket, which is no route but an upgrade', () => {
    expect(Object.keys(document.paths).sort()).toEqual([...routes, '/v1/socket'].sort())
    const names = operations().map(({ operation }) => operation.operationId)
    expect(new Set(names).size).toBe(names.length)
    expect(names).toContain('getPresence')
  })

  it('says of every parameter what it is, and whether it has to be there', () => {
    for (const { path, operation } of operations()) {
      for (const { name, in: place, description, schema } of operation.parameters ?? []) {
        if (place === 'query') expect([path, name, description]).toEqual([path, name, expect.any(String)])
        expect([path, name, Object.keys(schema).length > 0]).toEqual([path, name, true])
      }
    }
    const [topic] = operationIn(document, 'get', '/v1/events').parameters ?? []
    expect(topic).toMatchObject({ name: 'topic', in: 'query', required: true, schema: { type: 'array', minItems: 1 } })
    const limit = operationIn(document, 'get', '/v1/presence').parameters?.find(({ name }) => name === 'limit')
    expect(limit).toMatchObject({
      required: false,
      schema: { type: 'integer', minimum: 1, maximum: 1000, default: 100 },
    })
  })

  it('describes headers of requests and responses', () => {
    const names = (method: string, path: string) =>
      operationIn(document, method, path).parameters?.flatMap(each => (each.in === 'header' ? each.name : []))
    expect(names('post', '/v1/publish')).toEqual(['Idempotency-Key'])
    expect(names('get', '/v1/events')).toEqual(['Last-Event-ID'])
    expect(operationIn(document, 'post', '/v1/publish').responses['201']).toHaveProperty('headers.Idempotency-Replayed')
  })

  it('says that a body of text is text: clients write what is typed as nothing as JSON, in quotes', () => {
    const { content } = operationIn(document, 'post', '/v1/publish').requestBody ?? {}
    expect(content?.['text/plain']).toMatchObject({ schema: { type: 'string' } })
    expect(Object.keys(content ?? {})).toEqual(['application/json', 'text/plain', 'application/octet-stream'])
  })

  it('describes methods that are answered', async () => {
    for (const { path, method } of operations().filter(each => each.path !== '/v1/socket')) {
      const url = `${rig.url}${path.replace(/\{\w+\}/, 'nobody')}`
      const response = await fetch(url, { method: method.toUpperCase(), signal: AbortSignal.timeout(5000) })
      // The stream of the dashboard has no end.
      const text = response.status === 200 ? '' : await response.text()
      expect([path, response.status]).not.toEqual([path, 405])
      if (response.status === 404) expect(text).toContain('There is no such')
    }
  })

  it.each([
    ['get', '/v1/presence', '?topic=news/eu', 200],
    ['get', '/v1/presence', '', 200],
    ['get', '/v1/poll', '?topic=news/%23&timeout=0&last=10&json=true', 200],
    ['get', '/v1/openapi.json', '', 200],
    ['get', '/v1/events', '', 400],
    ['get', '/v1/poll', '?topic=a&cursor=x', 400],
    ['post', '/v1/connections/{connection}', '', 404],
    ['get', '/v1/clients', '?search=x', 200],
    ['get', '/v1/clients', '?limit=0', 400],
    ['get', '/v1/clients/{clientId}', '', 404],
    ['delete', '/v1/clients/{clientId}', '', 404],
  ] as const)('is true of %s %s%s: %i', async (method, path, query, status) => {
    presence.enter({ device: 'kitchen', user: 'alice', transport: 'sse', topics: ['news/#'] })
    await rig.publish('news/eu', '{"a":1}')
    const correlationData = Buffer.from('c')
    const userProperties = [['a', 'b']] as const
    const properties = encodeProperties({ contentType: 'a/b', responseTopic: 'r', correlationData, userProperties })
    const more = { retain: true, properties, expires: Date.now() + 60_000 }
    await rig.publish('news/bytes', Buffer.from([0xff]), more)
    const response = await fetch(`${rig.url}${path.replace(/\{\w+\}/, 'nobody')}${query}`, { method })
    const [type = ''] = (response.headers.get('content-type') ?? '').split(';')
    expect(response.status).toBe(status)
    const check = checkOf(method, path, status, type)
    check(JSON.parse(await response.text()))
    expect(check.errors).toBe(null)
  })

  it.each([
    ['?topic=news', 'text', 201],
    [
      '',
      JSON.stringify({
        messages: [
          { topic: 'a', payload: 'x' },
          { topic: 'b', json: { c: 1 }, qos: 0 },
        ],
      }),
      201,
    ],
    ['', JSON.stringify({ messages: [{ topic: '#', payload: 'x' }] }), 400],
  ])('is true of post /v1/publish%s', async (query, body, status) => {
    const response = await fetch(`${rig.url}/v1/publish${query}`, { method: 'POST', body })
    expect(response.status).toBe(status)
    const [type = ''] = (response.headers.get('content-type') ?? '').split(';')
    const check = checkOf('post', '/v1/publish', status, type)
    check(JSON.parse(await response.text()))
    expect(check.errors).toBe(null)
  })

  it.each([
    ['?topic=lamp&enveloped=true', 200, 'application/json'],
    ['?topic=lamp/%2B', 400, 'application/problem+json'],
  ])('is true of post /v1/request%s', async (query, status, type) => {
    const response = await fetch(`${rig.url}/v1/request${query}`, { method: 'POST', body: 'x' })
    expect(response.status).toBe(status)
    const check = checkOf('post', '/v1/request', status, type)
    check(JSON.parse(await response.text()))
    expect(check.errors).toBe(null)
  })

  it('has the events of a stream as it describes them', async () => {
    await rig.publish('news/eu', '{"a":1}', { retain: true })
    const response = await fetch(`${rig.url}/v1/events?topic=news/eu&json=true`)
    let text = ''
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString()
      if (text.includes('data: {"id"') && text.endsWith('\n\n')) break
    }
    const line = text.split('\n').find(each => each.startsWith('data: {"id"')) ?? ''
    const ajv = new Ajv2020({ strict: false, validateFormats: false })
    const check = ajv.compile(strict(document.components['schemas']?.['Event']) as object)
    const event = JSON.parse(line.slice(6))
    check(event)
    expect(check.errors).toBe(null)
    expect(check({ ...event, more: 1 })).toBe(false)
  })
})

describe('the description of a gateway', () => {
  it('is true of receipts', async () => {
    const gateway = await startTestGateway({ https: { port: 'off' } })
    onTestFinished(() => gateway.close())
    const ask = async (path: string, init: RequestInit = {}) => {
      const response = await fetch(`${gateway.urls.http}${path}`, init)
      return { status: response.status, body: JSON.parse(await response.text()) }
    }
    const { body: document } = await ask('/v1/openapi.json')
    const { body: published } = await ask('/v1/publish?topic=a&receiptFrom=kitchen&receiptWithin=1h', {
      method: 'POST',
      body: 'x',
    })
    const receipt = { id: published.id, status: 'received' }
    const receipts = [
      receipt,
      { ...receipt, status: 'failed', detail: 'no paper' },
      { ...receipt, id: `${published.id}9` },
    ]
    for (const [method, query, body] of [
      ['post', '?device=kitchen', receipt],
      ['post', '?device=kitchen', receipt],
      ['post', '?device=hall', { receipts }],
      ['post', '', { ...receipt, id: `${published.id}9` }],
      ['get', `?id=${published.id}`, undefined],
      ['get', `?id=${published.id}9`, undefined],
    ] as const) {
      const answered = await ask(`/v1/receipts${query}`, { method, ...(body && { body: JSON.stringify(body) }) })
      const type = answered.status < 400 ? 'application/json' : 'application/problem+json'
      const check = checkAnswer(document, method, '/v1/receipts', answered.status, type)
      check(answered.body)
      expect([method, query, answered.status, check.errors]).toEqual([method, query, answered.status, null])
    }
  })
})
