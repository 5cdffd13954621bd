import { fastify } from 'fastify'
import { describe, expect, it, onTestFinished } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { sendError } from '../../src/http/problem.js'

describe('an answer that says what is wrong', () => {
  it.each([
    { accept: 'text/html', type: 'text/html', text: 'a &lt;script&gt;&amp;amp;' },
    { accept: '*/*', type: 'text/plain', text: 'a <script>&amp;' },
  ])('has nothing in it that a browser would run, where it asks for $accept', async ({ accept, type, text }) => {
    const app = fastify()
    onTestFinished(() => app.close())
    const ending = new GatewayError('topic-refused', { hint: 'a <script>&amp;' })
    app.get('/', async (request, reply) => sendError(request, reply, ending))
    const answer = await app.inject({ url: '/', headers: { accept } })
    expect(answer.statusCode).toBe(403)
    expect(answer.headers['content-type']).toMatch(new RegExp(`^${type}`))
    expect(answer.body).toContain(`This topic is not open to you: ${text}.`)
  })
})
