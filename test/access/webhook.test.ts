import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { Authenticator } from '../../src/access/authenticator.js'
import { Tickets } from '../../src/access/tickets.js'
import { Webhook } from '../../src/access/webhook.js'
import { access } from '../../src/config/access.js'
import { MemoryState } from '../../src/storage/memory-state.js'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

interface Asked {
  readonly body: unknown
  readonly headers: http.IncomingHttpHeaders
}

type Answer = (response: http.ServerResponse, asked: Asked) => void

const json =
  (value: unknown): Answer =>
  response =>
    response.end(JSON.stringify(value))

/** A web service that answers so, and a webhook that asks it. */
async function service(answer: Answer, config: Record<string, unknown> = {}, now?: () => number) {
  const asked: Asked[] = []
  const server = http.createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const one = { body: JSON.parse(Buffer.concat(chunks).toString()), headers: request.headers }
    asked.push(one)
    answer(response, one)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const { webhook: parsed } = access.parse({ webhook: { url: `http://127.0.0.1:${port}/who`, ...config } })
  if (parsed === undefined) throw new Error('there is no webhook')
  const webhook = new Webhook({ config: parsed, ...(now === undefined ? {} : { now }) })
  closing.push(() => {
    webhook.close()
    server.closeAllConnections()
    server.close()
  })
  return { webhook, asked, server }
}

const question = {
  transport: 'mqtt',
  address: '192.0.2.1',
  user: 'alice',
  password: 'secret',
  path: undefined,
} as const
const unavailable = { reason: 'identity-unavailable', httpStatus: 503 }

describe('a webhook', () => {
  it('is told what is known, and says who it is and what they may do', async () => {
    const answer = { allow: true, user: 'Alice', roles: ['editor'], subscribe: ['news/#'] }
    const { webhook, asked } = await service(json(answer), { secret: 'hush' })
    expect(await webhook.query(question)).toEqual({
      user: 'Alice',
      source: 'webhook',
      roles: ['editor'],
      claims: {},
      rules: { publish: [], subscribe: ['news/#'] },
      expires: undefined,
    })
    expect(asked).toMatchObject([
      {
        body: { transport: 'mqtt', address: '192.0.2.1', user: 'alice', password: 'secret' },
        headers: { authorization: 'Bearer hush', 'content-type': 'application/json' },
      },
    ])
  })

  it('may let somebody in without a name, and leave the rules to the configuration', async () => {
    const { webhook, asked } = await service(json({ allow: true }))
    expect(await webhook.query(question)).toMatchObject({ user: undefined, source: 'webhook', rules: undefined })
    expect(asked[0]?.headers.authorization).toBeUndefined()
  })

  it.each<[string, Answer]>([
    ['allow: false', json({ allow: false })],
    ['401', response => response.writeHead(401).end()],
    ['403', response => response.writeHead(403).end('no')],
  ])('refuses with %s', async (_case, answer) => {
    const { webhook } = await service(answer)
    await expect(webhook.query(question)).rejects.toMatchObject({ reason: 'identity-refused' })
  })

  it.each<[string, Answer]>([
    ['another status', response => response.writeHead(500).end(JSON.stringify({ allow: true }))],
    ['no content', response => response.writeHead(204).end()],
    ['something else than JSON', response => response.end('yes')],
    ['no verdict', json({ user: 'alice' })],
    ['a verdict that is no verdict', json({ allow: 'yes', user: 'alice' })],
    ['an unknown key', json({ allow: true, user: 'alice', publsih: [] })],
    ['a name that is none', json({ allow: true, user: 'alice\r\nX-Admin: yes' })],
    ['a filter that is none', json({ allow: true, user: 'alice', publish: ['a/#/b'] })],
    ['too much', json({ allow: true, user: 'alice', roles: ['x'.repeat(70_000)] })],
    ['a redirect', response => response.writeHead(307, { location: '/elsewhere' }).end()],
    [
      'an end in the middle',
      response => response.writeHead(200, { 'content-length': '100' }).write('{"allow"', () => response.destroy()),
    ],
  ])('that answers with %s lets nobody in', async (_case, answer) => {
    const { webhook, asked } = await service(answer)
    await expect(webhook.query(question)).rejects.toMatchObject(unavailable)
    expect(asked).toHaveLength(1)
  })

  it('that does not answer in time lets nobody in', async () => {
    const { webhook } = await service(() => {}, { timeout: '100ms' })
    await expect(webhook.query(question)).rejects.toMatchObject(unavailable)
  })

  it('that stops in the middle of its answer lets nobody in', async () => {
    const { webhook } = await service(response => response.write('{"allow": true'), { timeout: '100ms' })
    await expect(webhook.query(question)).rejects.toMatchObject(unavailable)
  })

  it('that is not there lets nobody in', async () => {
    const { webhook, server } = await service(json({ allow: true }))
    server.close()
    await once(server, 'close')
    await expect(webhook.query(question)).rejects.toMatchObject(unavailable)
  })

  it('is not waited for when the gateway ends', async () => {
    const { webhook, asked } = await service(() => webhook.close())
    await expect(webhook.query(question)).rejects.toMatchObject(unavailable)
    expect(asked).toHaveLength(1)
  })
})

describe('the answer of a webhook', () => {
  it('counts for as long as it says, for the same question', async () => {
    let now = 0
    const { webhook, asked } = await service(json({ allow: true, user: 'a', ttl: 10 }), {}, () => now)
    await webhook.query(question)
    now = 9999
    await webhook.query(question)
    expect(asked).toHaveLength(1)
    await webhook.query({ ...question, password: 'other' })
    await webhook.query({ ...question, address: '192.0.2.2' })
    expect(asked).toHaveLength(3)
    now = 10_000
    await webhook.query(question)
    expect(asked).toHaveLength(4)
  })

  it('counts also where it is no', async () => {
    const { webhook, asked } = await service(json({ allow: false, ttl: 10 }))
    for (let count = 0; count < 3; count++) {
      await expect(webhook.query(question)).rejects.toMatchObject({ reason: 'identity-refused' })
    }
    expect(asked).toHaveLength(1)
  })

  it('is asked for again where it says nothing of time, or was none', async () => {
    const { webhook, asked } = await service(json({ allow: true }))
    await webhook.query(question)
    await webhook.query(question)
    expect(asked).toHaveLength(2)
    const broken = await service(response => response.writeHead(500).end())
    await expect(broken.webhook.query(question)).rejects.toMatchObject(unavailable)
    await expect(broken.webhook.query(question)).rejects.toMatchObject(unavailable)
    expect(broken.asked).toHaveLength(2)
  })

  it('is asked for once by all who want it at the same time', async () => {
    const { webhook, asked } = await service(json({ allow: true, user: 'a' }))
    const all = await Promise.all(Array.from({ length: 20 }, () => webhook.query(question)))
    expect(new Set(all.map(identity => identity.user))).toEqual(new Set(['a']))
    expect(asked).toHaveLength(1)
  })

  it('is not waited for by more than 20 of one address, who take no place from another', async () => {
    const waiting: http.ServerResponse[] = []
    const { webhook } = await service(response => {
      waiting.push(response)
      if (waiting.length >= 21) for (const one of waiting) one.end('{"allow":true}')
    })
    const ask = (index: number, address: string) => webhook.query({ ...question, clientId: String(index), address })
    const all = Array.from({ length: 20 }, (_, index) => ask(index, '192.0.2.1'))
    await expect(ask(20, '192.0.2.1')).rejects.toMatchObject({ reason: 'too-many-attempts' })
    await Promise.all([...all, ask(21, '192.0.2.2')])
    await expect(ask(22, '192.0.2.1')).resolves.toMatchObject({ source: 'webhook' })
  })

  it('is asked no more about passwords of an address that had ten wrong ones', async () => {
    const { webhook, asked } = await service(response => response.end('{"allow":false}'))
    const tickets = new Tickets({ expires: 1000, max: 1, state: new MemoryState() })
    const authenticator = new Authenticator({ webhook, tickets, acceptsCertificates: false, allowsAnonymous: false })
    const guess = (password: string) =>
      authenticator.identify({ ...question, credential: { kind: 'password', user: 'alice', password } })
    for (let index = 0; index < 10; index++) {
      await expect(guess(String(index))).rejects.toMatchObject({ reason: 'identity-refused' })
    }
    await expect(guess('11')).rejects.toMatchObject({ reason: 'too-many-attempts' })
    expect(asked).toHaveLength(10)
  })

  it('is not waited for by more than 200', async () => {
    const waiting: http.ServerResponse[] = []
    const { webhook } = await service(response => {
      waiting.push(response)
      if (waiting.length === 200) for (const one of waiting) one.end('{"allow":true}')
    })
    const ask = (index: number) => webhook.query({ ...question, clientId: String(index), address: `192.0.2.${index}` })
    const all = Array.from({ length: 200 }, (_, index) => ask(index))
    await expect(ask(200)).rejects.toMatchObject(unavailable)
    await Promise.all(all)
  })
})
