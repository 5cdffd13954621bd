import { once } from 'node:events'
import { mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { Agent, type IncomingMessage, request } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { describe, expect, it, onTestFinished, test } from 'vitest'
import WebSocket from 'ws'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'
import { recordingLog } from './rig.js'

interface Line {
  readonly [name: string]: unknown
  readonly url?: string
  readonly id: string
}

async function start(config: ConfigInput = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-access-'))
  const file = join(directory, 'access.log')
  const recording = recordingLog()
  const gateway = await startTestGateway({ accessLog: { file, format: 'json' }, ...config }, recording.log)
  onTestFinished(async () => {
    await gateway.close()
    await rm(directory, { recursive: true, force: true })
  })
  const read = async (): Promise<Line[]> => {
    const text = await readFile(file, 'utf8')
    return text.split('\n').flatMap(line => (line === '' ? [] : [JSON.parse(line)]))
  }
  /** The only line whose URL begins so, when it is there. */
  const lineOf = async (url: string): Promise<Line | undefined> => {
    let found: Line[] = []
    await eventually(async () => {
      found = (await read()).filter(line => line.url?.startsWith(url))
      return found.length > 0
    })
    expect(found).toHaveLength(1)
    return found[0]
  }
  return { ...recording, gateway, file, read, lineOf }
}

describe('the access log has a line', () => {
  it('for a page, with the bytes of its body and the id that the response has', async () => {
    const { gateway, lineOf } = await start({ compression: 'off' })
    const response = await fetch(`${gateway.urls.http}/index.html?v=1`, { headers: { 'user-agent': 'test' } })
    const length = (await response.arrayBuffer()).byteLength
    expect(await lineOf('/index.html')).toMatchObject({
      ...{ method: 'GET', url: '/index.html?v=1', protocol: 'HTTP/1.1', status: 200, bytes: length },
      ...{ peer: '127.0.0.1', userAgent: 'test', secure: false, id: response.headers.get('x-request-id') },
    })
  })

  it('for what has no body, and for errors', async () => {
    const { gateway, lineOf } = await start()
    await fetch(`${gateway.urls.http}/?head`, { method: 'HEAD' })
    expect(await lineOf('/?head')).toMatchObject({ method: 'HEAD', status: 200, bytes: 0 })
    const missing = await fetch(`${gateway.urls.http}/missing`)
    expect(await lineOf('/missing')).toMatchObject({ status: 404, bytes: (await missing.text()).length })
  })

  it('for bytes that are no request', async () => {
    const { gateway, read } = await start()
    const socket = connect(Number(new URL(gateway.urls.http).port), '127.0.0.1').end('nonsense\r\n\r\n')
    socket.resume()
    await once(socket, 'close')
    await eventually(async () => (await read()).length === 1)
    expect(await read()).toMatchObject([{ status: 400, peer: '127.0.0.1' }])
  })

  it('for an event stream when it ends, over HTTP/1.1 and HTTP/2', async () => {
    const { gateway, read, lineOf } = await start()
    const abort = new AbortController()
    const response = await fetch(`${gateway.urls.http}/v1/events?topic=a`, { signal: abort.signal })
    const reader = response.body?.getReader()
    const first = await reader?.read()
    const session = connectHttp2(gateway.urls.https, { rejectUnauthorized: false })
    const stream = session.request({ ':path': '/v1/events?topic=b' })
    const [chunk] = await once(stream, 'data')
    expect(await read()).toEqual([])
    abort.abort()
    stream.close()
    const line = await lineOf('/v1/events?topic=a')
    expect(line).toMatchObject({ status: 200, protocol: 'HTTP/1.1', id: response.headers.get('x-request-id') })
    expect(line?.['bytes']).toBeGreaterThanOrEqual(first?.value?.length ?? 0)
    expect(line?.['bytes']).toBeLessThan(2 * (first?.value?.length ?? 0))
    const second = await lineOf('/v1/events?topic=b')
    expect(second).toMatchObject({ status: 200, protocol: 'HTTP/2.0', secure: true })
    expect(second?.['bytes']).toBeGreaterThanOrEqual(chunk.length)
    session.close()
  })

  it('for a WebSocket when it is closed, and for a refused one', async () => {
    const { gateway, read, lineOf } = await start()
    const url = gateway.urls.http.replace('http', 'ws')
    const open = new WebSocket(`${url}/v1/socket?topic=b`)
    await once(open, 'open')
    expect((await read()).filter(line => line.url?.includes('topic=b'))).toEqual([])
    open.close()
    expect(await lineOf('/v1/socket?topic=b')).toMatchObject({ status: 101, method: 'GET' })
    const refused = new WebSocket(`${url}/nowhere`)
    const [, response] = (await once(refused, 'unexpected-response')) as [unknown, IncomingMessage]
    response.resume()
    expect(await lineOf('/nowhere')).toMatchObject({ status: 404, id: response.headers['x-request-id'] })
  })

  it('for each of the polls that follow each other on a connection, with an id of its own', async () => {
    const { gateway, read } = await start()
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    onTestFinished(() => agent.destroy())
    const poll = async (cursor?: string) => {
      const query = cursor === undefined ? '' : `&cursor=${cursor}`
      const asked = request(`${gateway.urls.http}/v1/poll?topic=a&timeout=5${query}`, { agent }).end()
      const [response] = (await once(asked, 'response')) as [IncomingMessage]
      const body = (await response.toArray()).join('')
      return {
        id: response.headers['x-request-id'],
        bytes: body.length,
        json: JSON.parse(body),
        keep: response.headers['keep-alive'],
      }
    }
    const publish = () => fetch(`${gateway.urls.http}/v1/publish?topic=a&retain=true`, { method: 'POST', body: 'x' })
    await publish()
    const polls = [await poll()]
    for (let round = 0; round < 4; round++) {
      await publish()
      polls.push(await poll(polls.at(-1)?.json.cursor))
    }
    expect(new Set(polls.map(({ keep }) => keep)).size).toBe(2)
    const lines = async () => (await read()).filter(({ url }) => url?.startsWith('/v1/poll'))
    await eventually(async () => (await lines()).length === 5)
    expect((await lines()).map(({ id, bytes, status }) => ({ id, bytes, status }))).toEqual(
      polls.map(({ id, bytes }) => ({ id, bytes, status: 200 })),
    )
    expect(new Set(polls.map(({ id }) => id)).size).toBe(5)
    const cursors = polls.slice(0, -1).map(({ json }) => json.cursor)
    expect((await lines()).slice(1).map(({ url }) => url?.split('cursor=')[1])).toEqual(cursors)
  })

  it('for a client that left before its response, with status 499', async () => {
    const { gateway, lineOf } = await start()
    const abort = new AbortController()
    const poll = fetch(`${gateway.urls.http}/v1/poll?topic=a&timeout=60`, { signal: abort.signal })
    await eventually(async () => {
      const presence = await fetch(`${gateway.urls.http}/metrics`)
      return /mqway_push_subscribers 1/.test(await presence.text())
    })
    abort.abort()
    await poll.catch(() => {})
    expect(await lineOf('/v1/poll')).toMatchObject({ status: 499, bytes: 0 })
  })
})

test('X-Request-ID of a trusted proxy is taken, if it is valid, and of nobody else', async () => {
  const send = async (trustedProxies: string[], id: string) => {
    const { gateway, lineOf } = await start({ trustedProxies })
    const headers = { 'x-request-id': id, 'x-forwarded-for': '192.0.2.9' }
    const response = await fetch(`${gateway.urls.http}/`, { headers })
    const line = await lineOf('/')
    expect(line?.id).toBe(response.headers.get('x-request-id'))
    return line
  }
  expect(await send(['loopback'], 'proxy-1/a')).toMatchObject({ id: 'proxy-1/a', peer: '192.0.2.9' })
  const random = /^[0-9a-f-]{36}$/
  expect((await send(['loopback'], 'a b'))?.id).toMatch(random)
  expect((await send(['loopback'], 'a'.repeat(129)))?.id).toMatch(random)
  expect((await send([], 'proxy-1'))?.id).toMatch(random)
})

test('the user is in the line, and no ticket', async () => {
  const secret = '0'.repeat(32)
  const { gateway, read } = await start({ access: { jwt: { secret, audience: 'mqway' } } })
  const token = await new SignJWT({})
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject('ada')
    .setAudience('mqway')
    .setExpirationTime('1h')
    .sign(Buffer.from(secret))
  const authorized = { method: 'POST', headers: { authorization: `Bearer ${token}` } }
  const issued = await fetch(`${gateway.urls.http}/v1/tickets`, authorized)
  const { ticket } = JSON.parse(await issued.text())
  await fetch(`${gateway.urls.http}/v1/poll?topic=a&timeout=0&ticket=${ticket}`)
  const socket = new WebSocket(`${gateway.urls.http.replace('http', 'ws')}/v1/socket?topic=a&token=${ticket}`)
  await once(socket, 'error')
  await eventually(async () => (await read()).length === 3)
  expect((await read()).map(({ user, status }) => [user, status])).toEqual([
    ['ada', 201],
    ['ada', 200],
    [undefined, 401],
  ])
  expect(JSON.stringify(await read())).not.toContain(ticket)
})

test('the id is in the lines of the program, too', async () => {
  const { gateway, line } = await start()
  const response = await fetch(`${gateway.urls.http}/missing`)
  expect(await line(/^request$/)).toMatchObject({ path: '/missing', requestId: response.headers.get('x-request-id') })
})

test('a reload opens the file again', async () => {
  const { gateway, file, lineOf } = await start()
  await fetch(`${gateway.urls.http}/before`)
  await lineOf('/before')
  await rename(file, `${file}.1`)
  await gateway.gateway.reload()
  await fetch(`${gateway.urls.http}/after`)
  await lineOf('/after')
})

test('a file that cannot be opened is an error at the start', async () => {
  const started = startTestGateway({ accessLog: { file: '/nowhere/access.log' } })
  await expect(started).rejects.toThrow(/^accessLog\.file: \/nowhere\/access\.log cannot be opened: ENOENT/)
})
