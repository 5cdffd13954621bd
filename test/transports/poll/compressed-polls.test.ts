import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import zlib from 'node:zlib'
import { expect, onTestFinished, test } from 'vitest'
import { startTestGateway } from '../../helpers/gateway.js'

const text = 'the same again and again. '.repeat(200)

/** A gateway, and one connection to it on which polls follow each other. */
async function start(compression: object) {
  const gateway = await startTestGateway({ compression })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  onTestFinished(async () => {
    agent.destroy()
    await gateway.close()
  })
  const ask = async (path: string, init: { method?: string; body?: string; agent?: Agent } = {}) => {
    const headers = { 'accept-encoding': 'gzip' }
    const asked = request(`${gateway.urls.http}${path}`, { agent, headers, ...init }).end(init.body)
    const [response] = (await once(asked, 'response')) as [IncomingMessage]
    const chunks: Buffer[] = []
    for await (const chunk of response) chunks.push(chunk)
    return { headers: response.headers, body: Buffer.concat(chunks) }
  }
  const publish = (payload: string) => ask('/v1/publish?topic=a', { method: 'POST', body: payload, agent: new Agent() })
  return { ask, publish }
}

function jsonOf({ headers, body }: { headers: IncomingMessage['headers']; body: Buffer }) {
  return JSON.parse(String(headers['content-encoding'] === 'gzip' ? zlib.gunzipSync(body) : body))
}

test('responses to polls are compressed with compression.polls, also those to repeated polls of a connection', async () => {
  const { ask, publish } = await start({ polls: true })
  let { cursor } = jsonOf(await ask('/v1/poll?topic=a&timeout=0'))
  const keepAlive = new Set<string>()
  for (const round of [1, 2, 3, 4]) {
    await publish(`${round} ${text}`)
    const answer = await ask(`/v1/poll?topic=a&timeout=5&cursor=${cursor}`)
    keepAlive.add(String(answer.headers['keep-alive']))
    expect(answer.headers).toMatchObject({ 'content-encoding': 'gzip', 'content-length': String(answer.body.length) })
    expect(answer.headers.vary).toContain('accept-encoding')
    const { events, cursor: next } = jsonOf(answer)
    expect(events.map(({ payload }: { payload: string }) => payload)).toEqual([`${round} ${text}`])
    cursor = next
  }
  // Repeated polls say another time.
  expect(keepAlive.size).toBe(2)
  const small = await ask(`/v1/poll?topic=a&timeout=0&cursor=${cursor}`)
  expect(small.headers['content-encoding']).toBeUndefined()
})

test('without it they are not, because lengths would tell others about secret messages (BREACH)', async () => {
  const { ask, publish } = await start({})
  const { cursor } = jsonOf(await ask('/v1/poll?topic=a&timeout=0'))
  await publish(text)
  const answer = await ask(`/v1/poll?topic=a&timeout=5&cursor=${cursor}`)
  expect(answer.headers['content-encoding']).toBeUndefined()
  expect(jsonOf(answer).events).toHaveLength(1)
})
