import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { ParameterError, parseJsonBody, readQuery, readValue } from '../../src/http/parameters.js'
import { serve } from './rig.js'

const schema = z.object({
  topic: z.string(),
  limit: z.coerce.number().int({ error: 'must be a whole number' }).max(10, { error: 'must be at most 10' }).default(5),
})

function problemOf(action: () => unknown): Partial<ParameterError> {
  try {
    action()
  } catch (error) {
    if (error instanceof ParameterError) return { parameter: error.parameter, message: error.message }
    throw error
  }
  throw new Error('nothing was wrong')
}

describe('a query', () => {
  it('is answered with a problem that names the first parameter that is wrong', async () => {
    const url = await serve(app => {
      app.get('/v1/x', async request => readQuery(request, schema))
    })
    const response = await fetch(`${url}/v1/x?topic=a&limit=11`)
    expect([response.status, response.headers.get('content-type'), await response.json()]).toEqual([
      400,
      'application/problem+json',
      {
        type: 'about:blank',
        title: 'Bad Request',
        status: 400,
        detail: 'limit must be at most 10',
        reason: 'invalid-parameter',
        parameter: 'limit',
      },
    ])
    expect(await (await fetch(`${url}/v1/x`)).json()).toMatchObject({ detail: 'topic is missing', parameter: 'topic' })
  })

  it.each([
    ['topic=%FF', 'topic'],
    ['topic=a&topic=%ED%A0%80', 'topic'],
    ['limit=1&topic=a%2F%C3', 'topic'],
  ])('that is no UTF-8 is refused: %s', async (query, parameter) => {
    const url = await serve(app => {
      app.get('/v1/x', async request =>
        readQuery(request, z.object({ topic: z.any().optional(), limit: z.any().optional() })),
      )
    })
    const response = await fetch(`${url}/v1/x?${query}`)
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { parameter, detail: expect.stringContaining('UTF-8') },
    ])
    expect((await fetch(`${url}/v1/x?topic=%C3%A4%2F100%&other=%FF`)).status).toBe(200)
  })

  it('may have what is not known', async () => {
    const url = await serve(app => {
      app.get('/v1/x', async request => readQuery(request, schema))
    })
    expect(await (await fetch(`${url}/v1/x?topic=a&_=1234`)).json()).toEqual({ topic: 'a', limit: 5 })
  })
})

describe('a body', () => {
  const body = z.strictObject({ messages: z.array(z.strictObject({ topic: z.string() })) })
  const read = (bytes: Buffer): unknown => readValue(body, parseJsonBody(bytes, 50_000))
  it.each([
    ['{', { parameter: '', message: 'The body must be JSON, in UTF-8' }],
    ['"\xff"', { parameter: '', message: 'The body must be JSON, in UTF-8' }],
    ['{}', { parameter: 'messages', message: 'messages is missing' }],
    ['{"messages":[{"topic":"a"},{}]}', { parameter: 'messages[1].topic', message: 'messages[1].topic is missing' }],
    ['null', { parameter: '', message: 'The body must be a JSON object' }],
    ['{"messages":{}}', { parameter: 'messages', message: 'messages must be a list' }],
    ['{"messages":[{"topic":1}]}', { parameter: 'messages[0].topic', message: 'messages[0].topic must be a string' }],
    ['{"messages":[],"x":1}', { parameter: '', message: 'The body has no member x' }],
  ])('that is %s is refused with what is wrong', (text, problem) => {
    expect(problemOf(() => read(Buffer.from(text, 'latin1')))).toEqual(problem)
  })

  it('is refused in a few words, however many and however long its members are', () => {
    const names = Array.from({ length: 15_000 }, (_, index) => `${index}${'x'.repeat(50)}`)
    const message = problemOf(() => read(Buffer.from(`{"messages":[],${names.map(name => `"${name}":0`).join()}}`)))
    expect(message.message).toMatch(/^The body has no member 0x{31}…, 1x{31}…, 2x{31}… and 14997 more$/)
    expect(new ParameterError('a'.repeat(1000), 'b'.repeat(1000)).message).toHaveLength(301)
  })

  it.each([
    ['values', `[${'0,'.repeat(50_000)}0]`, /at most 50000 values \(limits\.jsonValues\)/],
    ['levels', '['.repeat(101) + ']'.repeat(101), /nested deeper than 100 levels/],
  ])('with too many %s is not parsed', (_what, text, message) => {
    expect(problemOf(() => read(Buffer.from(text)))).toEqual({ parameter: '', message: expect.stringMatching(message) })
  })

  it('is what the schema makes of it', () => {
    expect(read(Buffer.from('{"messages":[{"topic":"ä"}]}'))).toEqual({ messages: [{ topic: 'ä' }] })
  })
})
