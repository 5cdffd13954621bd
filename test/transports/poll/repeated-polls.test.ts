import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect as connectTls } from 'node:tls'
import fc from 'fast-check'
import { SignJWT } from 'jose'
import { afterEach, describe, expect, it, onTestFinished } from 'vitest'
import { identityOf } from '../../../src/base/identity.js'
import { sendProblem } from '../../../src/http/problem.js'
import { formatId } from '../../../src/journal/event.js'
import { registerPoll } from '../../../src/transports/poll/poll.js'
import { registerEvents } from '../../../src/transports/sse/sse.js'
import { eventually, settled } from '../../helpers/wait.js'
import { openRaw, type RawAnswer, RawConnection } from '../raw-connection.js'
import { type Rig, type RigOptions, startRig } from '../rig.js'

let rig: Rig
const start = async (options: Partial<RigOptions> = {}): Promise<RawConnection> => {
  rig = await startRig({ register: registerPoll, ...options })
  return openRaw(rig.tcp())
}

const at = (sequence: number): string => formatId(rig.journal.epoch, sequence)
const get = (target: string, headers = ''): string => `GET ${target} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`
const poll = (cursor: string, more = '&timeout=0', headers = ''): string =>
  get(`/v1/poll?topic=a&cursor=${cursor}${more}`, headers)
const payloads = ({ body }: RawAnswer): string[] =>
  JSON.parse(body).events.map(({ payload }: { payload: string }) => payload)
const cursorOf = ({ body }: RawAnswer): string => JSON.parse(body).cursor
/** Only an answer that was written without a reply says that its connection may be silent for longer than others. */
const isRepeated = ({ headers }: RawAnswer): boolean => headers['keep-alive'] !== 'timeout=5'
const waiting = (count = 1) =>
  eventually(() => rig.hub.counters.subscribers === count && rig.hub.counters.catchingUp === 0)

/** Polls until a request is known on its connection. */
async function become(connection: RawConnection, more = '&timeout=60', headers = ''): Promise<void> {
  for (let round = 0; round < 2; round++) {
    connection.write(poll(at(rig.journal.head), more, headers))
    await waiting()
    await rig.publish('a', 'x')
    expect(isRepeated(await connection.next())).toBe(false)
  }
}

/** A connection to where a web service says who may come in: it is asked about each request, and answered by hand. */
async function startAsking(): Promise<{ connection: RawConnection; asked: ServerResponse[] }> {
  const asked: ServerResponse[] = []
  const webhook = createServer((_request, response) => asked.push(response)).listen(0, '127.0.0.1')
  onTestFinished(() => {
    webhook.closeAllConnections()
    webhook.close()
  })
  await once(webhook, 'listening')
  const url = `http://127.0.0.1:${(webhook.address() as AddressInfo).port}/`
  return { connection: await start({ config: { access: { webhook: { url } } } }), asked }
}

describe('a poll that is asked again on its connection', () => {
  afterEach(() => rig.close())

  it('gets each event once, in order, and from the third on without being read anew', async () => {
    const connection = await start()
    let cursor = at(0)
    const seen: string[] = []
    const repeated: boolean[] = []
    for (let round = 0; round < 6; round++) {
      connection.write(poll(cursor, '&timeout=60'))
      await waiting()
      await Promise.all([rig.publish('a', `${round} ✓`), rig.publish('b', 'no'), rig.publish('a', `${round} ✓✓`)])
      const answer = await connection.next()
      seen.push(...payloads(answer))
      repeated.push(isRepeated(answer))
      cursor = cursorOf(answer)
    }
    expect(seen).toEqual([0, 1, 2, 3, 4, 5].flatMap(round => [`${round} ✓`, `${round} ✓✓`]))
    expect(repeated).toEqual([false, false, true, true, true, true])
  })

  it('is answered as when it was asked first', async () => {
    const connection = await start({ push: { origins: ['*'] } })
    const answers: RawAnswer[] = []
    const headers = 'Origin: https://example.org\r\n'
    for (let round = 0; round < 3; round++)
      answers.push(await connection.ask(poll(at(0), '&device=d&timeout=1', headers)))
    const [first, , third] = answers.map(({ headers: { date, ...others }, ...rest }) => {
      expect(Date.parse(date ?? '')).not.toBeNaN()
      return { ...rest, headers: others }
    })
    expect(third).toEqual({ ...first, headers: { ...first?.headers, 'keep-alive': 'timeout=6' } })
    expect(third?.headers).toMatchObject({ 'access-control-allow-origin': 'https://example.org', vary: 'origin' })
  })

  it('is told what is wrong with its cursor, and its connection goes on', async () => {
    const connection = await start()
    await become(connection)
    const wrong = await connection.ask(poll('nonsense', '&timeout=60'))
    expect([wrong.status, JSON.parse(wrong.body).parameter]).toEqual([400, 'cursor'])
    const other = await connection.ask(poll(`${'0'.repeat(15)}-1`, '&timeout=60'))
    expect(JSON.parse(other.body).gap.reason).toBe('other-epoch')
  })

  it('counts as a request, and is told when there are too many', async () => {
    const connection = await start({ config: { limits: { requestsPerSecond: 1, requestsBurst: 4 } } })
    await become(connection)
    const statuses: number[] = []
    for (let round = 0; round < 3; round++) {
      await rig.publish('a', 'x')
      statuses.push((await connection.ask(poll(at(0), '&timeout=60'))).status)
    }
    expect(statuses).toEqual([200, 200, 429])
  })

  it('is let in again only while its token holds', async () => {
    const secret = '0'.repeat(32)
    const connection = await start({ config: { access: { jwt: { secret, audience: 'mqway' } }, anonymous: true } })
    const issued = await Promise.all([0, 1].map(() => rig.access.tickets.issue(identityOf('ada', 'token'))))
    const tickets = issued.map(({ ticket }) => ticket)
    const statuses: number[] = []
    for (const ticket of [tickets[0], tickets[1], tickets[1]]) {
      statuses.push((await connection.ask(poll(at(0), `&timeout=0&ticket=${ticket}`))).status)
    }
    expect(statuses).toEqual([200, 200, 401])
  })

  it('is let in by a token each time, and may do what that says', async () => {
    const secret = '0'.repeat(32)
    const rules = [{ to: { user: 'ada' }, subscribe: ['a'] }]
    const connection = await start({ config: { access: { jwt: { secret, audience: 'mqway' }, rules } } })
    const token = new SignJWT({}).setProtectedHeader({ alg: 'HS256' }).setSubject('ada').setAudience('mqway')
    const signed = await token.setExpirationTime('1h').sign(Buffer.from(secret))
    const answers: RawAnswer[] = []
    for (let round = 0; round < 4; round++) {
      await rig.publish('a', 'x')
      answers.push(await connection.ask(poll(at(round), '&timeout=60', `Authorization: Bearer ${signed}\r\n`)))
    }
    expect(answers.map(isRepeated)).toEqual([false, false, true, true])
    expect(answers.map(payloads)).toEqual([['x'], ['x'], ['x'], ['x']])
  })

  it('leaves nothing behind when its client goes', async () => {
    const connection = await start()
    await become(connection, '&timeout=60&device=d')
    connection.write(poll(at(rig.journal.head), '&timeout=60&device=d'))
    await waiting()
    expect(rig.limits.open).toBe(1)
    connection.socket.destroy()
    await eventually(() => rig.hub.counters.subscribers === 0)
    expect([rig.limits.open, rig.attendances.every(({ left }) => left)]).toEqual([0, true])
  })

  it('has what is asked behind it wait for its answer', async () => {
    const connection = await start()
    await become(connection)
    connection.write(poll(at(rig.journal.head), '&timeout=60'))
    await waiting()
    connection.write(`${poll(at(0), '&timeout=0&limit=1')}${get('/nothing')}`)
    // By now it would have been answered.
    expect((await fetch(`${rig.url}/nothing`)).status).toBe(404)
    await rig.publish('a', 'late')
    const [first, second, third] = [await connection.next(), await connection.next(), await connection.next()]
    expect([isRepeated(first), payloads(first), payloads(second), third.status]).toEqual([true, ['late'], ['x'], 404])
  })

  it('is not known while another one before it waits', async () => {
    const connection = await start()
    const other = get(`/v1/poll?topic=b&cursor=${at(0)}&timeout=60`)
    await rig.publish('b', 'early')
    await connection.ask(poll(at(0), '&timeout=0'))
    connection.write(poll(at(1), '&timeout=60'))
    await waiting()
    connection.write(other.replace(at(0), at(1)))
    await rig.publish('a', 'first')
    expect(payloads(await connection.next())).toEqual(['first'])
    await waiting()
    connection.write(other)
    await rig.publish('b', 'second')
    const [second, third] = [await connection.next(), await connection.next()]
    expect([payloads(second), payloads(third)]).toEqual([['second'], ['early', 'second']])
  })

  it('gets a large answer in parts', async () => {
    const connection = await start()
    await become(connection, '&timeout=60&limit=1000')
    const text = '✓'.repeat(50_000)
    for (let index = 0; index < 5; index++) await rig.publish('a', `${index}${text}`)
    const answer = await connection.ask(poll(at(2), '&timeout=60&limit=1000'))
    expect([isRepeated(answer), answer.headers['transfer-encoding']]).toEqual([true, 'chunked'])
    expect(payloads(answer)).toEqual([0, 1, 2, 3, 4].map(index => `${index}${text}`))
    await rig.publish('a', 'next')
    const next = await connection.ask(poll(cursorOf(answer), '&timeout=60&limit=1000'))
    expect([isRepeated(next), payloads(next)]).toEqual([true, ['next']])
  })

  it('is parsed with any other cursor than that of the last response', async () => {
    const connection = await start()
    await become(connection)
    await rig.publish('a', 'y')
    const answer = await connection.ask(poll(at(1), '&timeout=60'))
    expect([isRepeated(answer), payloads(answer)]).toEqual([false, ['x', 'y']])
  })

  it('works over TLS', async () => {
    await start()
    const socket = connectTls({ port: Number(new URL(rig.secureUrl).port), rejectUnauthorized: false })
    await once(socket, 'secureConnect')
    const connection = new RawConnection(socket)
    await become(connection)
    connection.write(poll(at(2), '&timeout=60'))
    await waiting()
    await rig.publish('a', 'secret')
    const answer = await connection.next()
    expect([isRepeated(answer), payloads(answer)]).toEqual([true, ['secret']])
    socket.destroy()
  })

  it('is answered when the gateway shuts down, and the next is refused', async () => {
    let polls = { close: () => {} }
    const connection = await start({
      register: (app, options) => {
        polls = registerPoll(app, options)
      },
    })
    await become(connection)
    connection.write(poll(at(2), '&timeout=60'))
    await waiting()
    polls.close()
    expect(payloads(await connection.next())).toEqual([])
    expect((await connection.ask(poll(at(2), '&timeout=60'))).status).toBe(503)
  })

  it('leaves its connection to a stream', async () => {
    const connection = await start({
      register: (app, options) => {
        registerPoll(app, options)
        registerEvents(app, options)
      },
    })
    await become(connection)
    expect((await connection.ask(get('/v1/events?topic=a'))).headers['content-type']).toContain('text/event-stream')
    await waiting()
    const rest: string[] = []
    connection.socket.on('data', text => rest.push(String(text)))
    // Nothing that comes now is a request.
    connection.write(poll(at(0)).repeat(3))
    await fetch(rig.url)
    await rig.publish('a', 'x')
    await eventually(() => rest.join('').includes('"payload":"x"'))
    expect(rest.join('')).not.toContain('HTTP/1.1')
    // Nor is it one of whoever has its parser next.
    const next = await openRaw(rig.tcp())
    expect((await next.ask(get('/nothing'))).status).toBe(404)
    connection.write(poll(at(0)))
    await fetch(rig.url)
    expect((await next.ask(get('/nothing'))).status).toBe(404)
  })

  it('leaves its connection to what it is upgraded to', async () => {
    let listeners = () => 0
    const connection = await start({
      onUpgrade: () => (_request, socket) => {
        socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n')
        socket.pipe(socket)
        listeners = () => socket.listenerCount('data')
      },
    })
    await become(connection)
    const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n'
    expect((await connection.ask(get('/socket', upgrade))).status).toBe(101)
    connection.socket.removeAllListeners('data')
    const echoed = once(connection.socket, 'data')
    connection.write(poll(at(0)))
    expect([await echoed, listeners()]).toEqual([[poll(at(0))], 1])
  })

  it('is not taken for one in a body', async () => {
    const connection = await start()
    await rig.publish('a', 'x')
    const sized = (length: number) => poll(at(0), '&timeout=60', `Content-Length: ${length}\r\n`)
    const text = sized(sized(100).length)
    for (let round = 0; round < 4; round++) {
      expect(payloads(await connection.ask(text))).toEqual(['x'])
      connection.write(text)
      await fetch(rig.url)
    }
    expect((await connection.ask(get('/nothing'))).status).toBe(404)
  })

  it('is not taken for one in a body that came while it was found out who asked', async () => {
    const { connection, asked } = await startAsking()
    // Nothing is published: the cursor of the response is that of the request.
    const text = poll(at(0), '&timeout=0')
    const admit = () => asked.splice(0).map(answer => answer.end('{"allow":true}'))
    connection.write(text)
    await eventually(() => asked.length === 1)
    admit()
    await connection.next()
    connection.write(text)
    await eventually(() => asked.length === 1)
    // What it expects is not there, and so it is answered before its body is.
    const more = `Host: localhost\r\nExpect: nothing\r\nContent-Length: ${2 * text.length}\r\n`
    connection.write(`POST /nothing HTTP/1.1\r\n${more}\r\n`)
    await fetch(`${rig.url}/nothing`)
    connection.write(text)
    await fetch(`${rig.url}/nothing`)
    admit()
    expect([(await connection.next()).status, (await connection.next()).status]).toEqual([200, 417])
    connection.write(text)
    await settled(() => asked.length)
    expect(asked).toEqual([])
    expect((await connection.ask(get('/nothing'))).status).toBe(404)
  })

  it('is not taken for the rest of a head that came behind it', async () => {
    const connection = await start()
    const text = poll(at(0), '&timeout=0')
    await connection.ask(text)
    connection.write(`${text}GET /nothing HTTP/1.1\r\nHost: localhost\r\nX-Poll: `)
    expect(payloads(await connection.next())).toEqual([])
    connection.write(text)
    // As a header, it brings a second Host.
    expect((await connection.next()).status).toBe(400)
  })

  it('is answered in its order among others, however they are cut and put together', async () => {
    rig = await startRig({
      register: (app, options) => {
        registerPoll(app, options)
        app.get('/problem', async (_request, reply) => sendProblem(reply, { status: 404 }))
      },
    })
    for (let index = 0; index < 5; index++) await rig.publish('a', String(index))
    const body = poll(at(1), '&timeout=60&limit=1')
    const requests: { text: string; status: number; events?: number }[] = [
      ...[0, 1, 2, 3, 4].map(index => ({ text: poll(at(index), '&timeout=60&limit=1'), status: 200, events: 1 })),
      { text: get('/problem'), status: 404 },
      { text: get(`/v1/poll?topic=a&timeout=0&cursor=${at(2)}`), status: 200, events: 3 },
      { text: poll(at(3), '&timeout=60', 'X-Other: 1\r\n'), status: 200, events: 2 },
      { text: poll('wrong', '&timeout=60'), status: 400 },
      { text: poll(at(4), '&timeout=60').replace('Host: ', 'Host:  '), status: 200, events: 1 },
      // A body that looks like what was asked before.
      {
        text: `POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        status: 404,
      },
      {
        text: poll(at(2), '&timeout=60').replace('\r\n\r\n', `\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
        status: 200,
        events: 3,
      },
    ]
    const index = fc.nat({ max: requests.length - 1 })
    // Mostly the poll with the cursor of the one before.
    const next = -1
    const asked = fc
      .array(fc.oneof({ weight: 4, arbitrary: fc.constant(next) }, index), { minLength: 1, maxLength: 12 })
      .map(steps => {
        let polled = -1
        return steps.map(step => {
          if (step < 5) polled = step === next ? (polled + 1) % 5 : step
          return step < 5 ? polled : step
        })
      })
    // Where a request, or its body, begins, or anywhere.
    const cut = fc.record({ of: fc.nat({ max: 11 }), at: fc.constantFrom('head', 'body', 'anywhere'), part: fc.nat() })
    const cuts = fc.array(cut, { maxLength: 8 })
    let repeated = 0
    await fc.assert(
      fc.asyncProperty(asked, cuts, fc.boolean(), fc.boolean(), async (indexes, places, oneByOne, waits) => {
        const connection = await openRaw(rig.tcp())
        const wanted = indexes.map(chosen => requests[chosen] as (typeof requests)[number])
        const answers: RawAnswer[] = []
        const all = wanted.map(({ text }) => text).join('')
        const endings = wanted.map((_, index) =>
          wanted.slice(0, index + 1).reduce((sum, { text }) => sum + text.length, 0),
        )
        const placeOf = ({ of, at, part }: { of: number; at: string; part: number }): number => {
          if (at === 'anywhere') return part % all.length
          const before = endings[(of % wanted.length) - 1] ?? 0
          return at === 'head' ? before : all.indexOf('\r\n\r\n', before) + 4
        }
        const ends = [...places.map(placeOf), ...(oneByOne ? endings : [all.length])].sort((a, b) => a - b)
        let from = 0
        for (const end of ends) {
          connection.write(all.slice(from, end))
          from = end
          const complete = endings.filter(ending => ending <= end).length
          while (waits && answers.length < complete) answers.push(await connection.next())
          await fetch(`${rig.url}/problem`)
        }
        while (answers.length < wanted.length) answers.push(await connection.next())
        connection.socket.destroy()
        repeated += answers.filter(isRepeated).length
        expect(answers.map(answer => [answer.status, eventsOf(answer)])).toEqual(
          wanted.map(({ status, events }) => [status, events]),
        )
      }),
      { numRuns: 150 },
    )
    expect(repeated).toBeGreaterThan(50)
  })
})

function eventsOf({ status, body }: RawAnswer): number | undefined {
  return status === 200 ? JSON.parse(body).events.length : undefined
}
