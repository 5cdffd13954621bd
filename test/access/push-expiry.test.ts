import { writeFile } from 'node:fs/promises'
import { connect as connectHttp2 } from 'node:http2'
import bcrypt from 'bcrypt'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { ask } from '../helpers/asking.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { basic, bearer, secondsFromNow, ticketOf } from '../helpers/identities.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { openSource, openSource2, type TestSource } from '../transports/event-source.js'

/*
 * What stays open ends with what proved who it is, unless the same user presents something fresh.
 */

const expired = 'Credentials expired'

let people: People
beforeAll(async () => {
  people = await People.start()
})
afterAll(() => people?.stop())

async function start(): Promise<TestGateway> {
  const rules = [{ to: 'authenticated' as const, publish: ['own/%u'], subscribe: ['own/%u', 'all/#'] }]
  const gateway = await startTestGateway({ access: { ...people.access, rules } })
  onTestFinished(() => gateway.close())
  await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
  return gateway
}

type Headers = Readonly<Record<string, string>>
const bearing = (token: string): Headers => bearer(token).headers ?? {}

/** Something that stays open, whichever it is. */
interface Open {
  readonly id: () => string
  readonly payloads: () => unknown[]
  /** What it was told in the end; resolves when that is all. */
  readonly end: () => Promise<unknown>
  readonly isOpen: () => boolean
}

function ofSource(source: TestSource): Open {
  onTestFinished(() => source.leave())
  return {
    id: () => String(source.of('welcome')[0]?.['connection']),
    payloads: () => source.payloads(),
    end: async () => {
      await source.end()
      return source.of('end')[0]
    },
    isOpen: () => !source.ended,
  }
}

async function openSocket(gateway: TestGateway, path: string, headers: Headers, subprotocols: string[] = []) {
  const client = new WebSocket(`${gateway.urls.http.replace('http', 'ws')}${path}`, subprotocols, { headers })
  onTestFinished(() => client.terminate())
  const told: { readonly type: string; readonly [member: string]: unknown }[] = []
  let closed: [number, string] | undefined
  client.on('message', data => told.push(JSON.parse(String(data))))
  client.on('close', (code, reason) => {
    closed = [code, String(reason)]
  })
  await eventually(() => told.some(({ type }) => type === 'live'))
  const open: Open = {
    id: () => String(told[0]?.['connection']),
    payloads: () => told.filter(({ type }) => type === 'event').map(({ payload }) => payload),
    end: async () => {
      await eventually(() => closed !== undefined)
      const end = told.find(({ type }) => type === 'end')
      expect(closed).toEqual([1008, end?.['detail']])
      return end
    },
    isOpen: () => closed === undefined,
  }
  return { ...open, client, told }
}

type Way = (gateway: TestGateway, query: string, headers: Headers) => Promise<Open>
/** Each way in which something stays open. */
const ways: Readonly<Record<string, Way>> = {
  'an event stream': async (gateway, query, headers) => {
    const source = await openSource(`${gateway.urls.http}/v1/events?${query}`, headers)
    await source.live()
    return ofSource(source)
  },
  'an event stream over HTTP/2': async (gateway, query, headers) => {
    const session = connectHttp2(gateway.urls.https, { rejectUnauthorized: false })
    onTestFinished(() => session.destroy())
    const source = await openSource2(session, `/v1/events?${query}`, headers)
    await source.live()
    return ofSource(source)
  },
  'a socket': (gateway, query, headers) => openSocket(gateway, `/v1/socket?${query}`, headers),
}

const publish = (gateway: TestGateway, headers: Headers, payload: string) =>
  ask(gateway.urls, 'http', { method: 'POST', path: '/v1/publish?topic=own/alice', body: payload, headers })

const renew = (gateway: TestGateway, id: string, headers: Headers) =>
  ask(gateway.urls, 'http', { method: 'POST', path: `/v1/connections/${id}`, headers })

/** The same in each way, at the same time. */
function inEachWay(
  title: string,
  run: (given: { name: string; open: Way; gateway: TestGateway }) => Promise<void>,
): void {
  it(title, async () => {
    const given = await Promise.all(
      Object.entries(ways).map(async ([name, open]) => ({ name, open, gateway: await start() })),
    )
    await Promise.all(given.map(run))
  })
}

describeWith('openssl', 'what stays open for somebody', () => {
  inEachWay(
    'ends with what proves who they are, and not what was made with something else',
    async ({ open, gateway }) => {
      const exp = secondsFromNow(2)
      const token = await people.token({ exp })
      const query = 'topic=own/alice'
      const ticket = await ticketOf(gateway.urls.http, bearer(token))
      const ending = [await open(gateway, query, bearing(token)), await open(gateway, `${query}&ticket=${ticket}`, {})]
      const lasting = [
        await open(gateway, query, bearing(await people.token())),
        await open(gateway, query, basic('alice:right').headers ?? {}),
      ]
      await publish(gateway, bearing(token), 'before')
      const ends = await Promise.all(ending.map(({ end }) => end()))
      // Not before its time; and not a second after.
      expect(Date.now()).toBeGreaterThanOrEqual(exp * 1000)
      for (const end of ends) expect(end).toMatchObject({ reason: 'identity-expired', detail: expired })
      await publish(gateway, bearing(await people.token()), 'after')
      for (const { payloads, isOpen } of lasting) {
        await eventually(() => payloads().length === 2)
        expect(payloads()).toEqual(['before', 'after'])
        expect(isOpen()).toBe(true)
      }
      for (const { payloads } of ending) expect(payloads()).toEqual(['before'])
    },
  )

  inEachWay('is kept when the same user presents something fresh', async ({ open, gateway }) => {
    const first = bearing(await people.token({ exp: secondsFromNow(2) }))
    const opened = await open(gateway, 'topic=own/alice', first)
    const other = await open(gateway, 'topic=own/alice', first)
    const second = bearing(await people.token({ exp: secondsFromNow(3) }))
    expect((await renew(gateway, opened.id(), second)).status).toBe(204)
    await other.end()
    expect(opened.isOpen()).toBe(true)
    await publish(gateway, second, 'later')
    await eventually(() => opened.payloads().includes('later'))
    // It ends with the last of them.
    expect(await opened.end()).toMatchObject({ reason: 'identity-expired' })
  })

  inEachWay('is not kept by what is of another user, or not right', async ({ open, gateway }) => {
    const opened = await open(gateway, 'topic=own/alice', bearing(await people.token({ exp: secondsFromNow(2) })))
    const id = opened.id()
    const carol = basic('carol:hook').headers ?? {}
    for (const [headers, status] of [
      [carol, 403],
      [bearing(await people.token({ sub: 'mallory' })), 403],
      [bearing(await people.token({ exp: secondsFromNow(-1) })), 401],
      [bearing(await people.token({}, 'x'.repeat(32))), 401],
      [{}, 401],
    ] as const) {
      expect(await renew(gateway, id, headers)).toMatchObject({ status })
    }
    expect((await renew(gateway, `${id.slice(0, -1)}_`, bearing(await people.token()))).status).toBe(404)
    expect(opened.isOpen()).toBe(true)
    expect(await opened.end()).toMatchObject({ reason: 'identity-expired' })
  })

  it('stays, where a socket presents a fresh token of the same user, and no other', async () => {
    const gateway = await start()
    const token = await people.token({ exp: secondsFromNow(2) })
    const socket = await openSocket(gateway, '/v1/socket?topic=own/alice', {}, ['mqway', `bearer.${token}`])
    const other = await openSocket(gateway, '/v1/socket', bearing(token))
    const answerTo = async ({ client, told }: typeof socket, fresh: string) => {
      const ref = Math.random()
      client.send(JSON.stringify({ type: 'authenticate', token: fresh, ref }))
      await eventually(() => told.some(answer => answer['ref'] === ref))
      return told.find(answer => answer['ref'] === ref)
    }
    const mallory = await people.token({ sub: 'mallory' })
    for (const wrong of [mallory, 'a.b.c', await people.token({ exp: secondsFromNow(-1) })]) {
      expect(await answerTo(other, wrong)).toMatchObject({ type: 'error', status: 401, reason: 'identity-refused' })
    }
    const exp = secondsFromNow(60)
    expect(await answerTo(socket, await people.token({ exp }))).toMatchObject({
      type: 'ok',
      expires: new Date(exp * 1000).toISOString(),
    })
    expect(await other.end()).toMatchObject({ reason: 'identity-expired' })
    await publish(gateway, bearing(await people.token()), 'later')
    await eventually(() => socket.payloads().includes('later'))
  })

  inEachWay('goes on only as far as the fresh one allows', async ({ name, open, gateway }) => {
    const mqtt = { subscribe: ['extra/#'], publish: [] }
    const opened = await open(gateway, 'topic=extra/x', bearing(await people.token({ mqtt })))
    const second = bearing(await people.token())
    expect((await renew(gateway, opened.id(), second)).status).toBe(204)
    const editor = bearing(await people.token({ sub: 'editor', mqtt: { publish: ['extra/#'], subscribe: [] } }))
    const told = { method: 'POST', path: '/v1/publish?topic=extra/x', body: 'secret', headers: editor }
    expect((await ask(gateway.urls, 'http', told)).status).toBe(201)
    // Streams cannot do with less, and end; a socket stays with what is left.
    if (name === 'a socket') {
      await publish(gateway, second, 'x')
      expect(opened.isOpen()).toBe(true)
    } else expect(await opened.end()).toMatchObject({ reason: 'topic-refused' })
    expect(opened.payloads()).toEqual([])
  })

  it('is, where it is a poll, answered with its place, and the next one is refused', async () => {
    const gateway = await start()
    const exp = secondsFromNow(2)
    const headers = bearing(await people.token({ exp }))
    const poll = { path: '/v1/poll?topic=own/alice&timeout=30', headers }
    const { status, text } = await ask(gateway.urls, 'http', poll)
    expect(Date.now()).toBeGreaterThanOrEqual(exp * 1000)
    expect({ status, body: JSON.parse(text) }).toMatchObject({ status: 200, body: { events: [], gap: null } })
    expect((await ask(gateway.urls, 'http', poll)).status).toBe(401)
    // Nothing was lost by that.
    const fresh = bearing(await people.token())
    await publish(gateway, fresh, 'after')
    const next = await ask(gateway.urls, 'http', {
      path: `/v1/poll?topic=own/alice&cursor=${JSON.parse(text).cursor}`,
      headers: fresh,
    })
    expect(JSON.parse(next.text)).toMatchObject({ events: [{ payload: 'after' }], gap: null })
  })

  it('ends when it is by a password that is not the one any more', async () => {
    const gateway = await start()
    const login = basic('alice:right').headers ?? {}
    const ticket = await ticketOf(gateway.urls.http, basic('alice:right'))
    onTestFinished(() => writeFile(people.file('users'), `alice:${bcrypt.hashSync('right', 4)}\n`))
    const opened = [await ways['an event stream']?.(gateway, `topic=own/alice&ticket=${ticket}`, {})]
    for (const open of Object.values(ways)) opened.push(await open(gateway, 'topic=own/alice', login))
    const other = await ways['a socket']?.(gateway, 'topic=own/alice', bearing(await people.token()))
    const poll = ask(gateway.urls, 'http', { path: '/v1/poll?topic=own/alice&timeout=30', headers: login })
    await eventually(async () => {
      const answer = await ask(gateway.urls, 'http', {
        path: '/v1/presence?topic=own/alice',
        headers: bearing(await people.token()),
      })
      return answer.text.includes('"poll"')
    })
    await writeFile(people.file('users'), `alice:${bcrypt.hashSync('new', 4)}\n`)
    await gateway.gateway.reload()
    const detail = `${expired}: the password is another one now, or none`
    for (const connection of opened) {
      expect(await connection?.end()).toMatchObject({ reason: 'identity-expired', detail })
    }
    expect(JSON.parse((await poll).text)).toMatchObject({ events: [] })
    expect(other?.isOpen()).toBe(true)
    expect((await publish(gateway, login, 'x')).status).toBe(401)
    expect((await publish(gateway, basic('alice:new').headers ?? {}, 'x')).status).toBe(201)
    await eventually(() => other?.payloads().includes('x') ?? false)
  })
})
