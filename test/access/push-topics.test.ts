import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { ask } from '../helpers/asking.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { bearer } from '../helpers/identities.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { openSource, type TestSource } from '../transports/event-source.js'

/*
 * What the rules give over push, and what they do not, whatever way somebody tries.
 */

let people: People
let gateway: TestGateway

const headersOf = async (sub: string, claims = {}): Promise<Record<string, string>> => ({
  ...bearer(await people.token({ sub, ...claims })).headers,
})

async function get(sub: string, path: string) {
  const { status, text } = await ask(gateway.urls, 'http', { path, headers: await headersOf(sub) })
  return { status, body: JSON.parse(text) }
}

async function post(sub: string, path: string, body: unknown) {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const answer = await ask(gateway.urls, 'http', { method: 'POST', path, body: text, headers: await headersOf(sub) })
  return { status: answer.status, body: answer.text === '' ? undefined : JSON.parse(answer.text) }
}

const publish = (sub: string, topic: string, payload = 'x', more = '') =>
  post(sub, `/v1/publish?topic=${encodeURIComponent(topic)}${more}`, payload)

async function source(sub: string, query: string): Promise<TestSource> {
  const opened = await openSource(`${gateway.urls.http}/v1/events?${query}`, await headersOf(sub))
  onTestFinished(() => opened.leave())
  return opened
}

interface Message {
  readonly type: string
  readonly [member: string]: unknown
}

/** A socket, and what it is told. */
async function socket(sub: string, query = '') {
  const url = `${gateway.urls.http.replace('http', 'ws')}/v1/socket?${query}`
  const client = new WebSocket(url, { headers: await headersOf(sub) })
  onTestFinished(() => client.terminate())
  const told: Message[] = []
  client.on('message', data => told.push(JSON.parse(String(data))))
  await new Promise((resolve, reject) => client.once('open', resolve).once('error', reject))
  let last = 0
  const request = async (message: object): Promise<Message> => {
    const ref = ++last
    client.send(JSON.stringify({ ...message, ref }))
    await eventually(() => told.some(answer => answer['ref'] === ref))
    return told.find(answer => answer['ref'] === ref) ?? { type: 'none' }
  }
  return { told, request, events: () => told.filter(({ type }) => type === 'event') }
}

const refused = (topic: string) => ({
  status: 403,
  body: expect.objectContaining({ reason: 'topic-refused', detail: `This topic is not open to you: ${topic}` }),
})

describeWith('openssl', 'the rules of topics, over push,', () => {
  beforeAll(async () => {
    people = await People.start()
    gateway = await startTestGateway({
      access: {
        jwt: { ...people.access.jwt },
        rules: [
          { to: 'anonymous', subscribe: ['public/#'] },
          { to: 'authenticated', publish: ['own/%u/#'], subscribe: ['own/%u/#', 'news/+'] },
          { to: { user: 'editor' }, publish: ['news/#', 'own/#', 'public/#'], subscribe: ['#'] },
          { to: { user: 'operator' }, subscribe: ['$SYS/#'] },
          { to: { user: 'courier' }, subscribe: ['receipts/own/alice/#'] },
        ],
      },
      push: { topics: ['#', '$SYS/#'] },
    })
    await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
  })
  afterAll(async () => {
    await gateway?.close()
    await people?.stop()
  })

  describe('refuse what they do not cover:', () => {
    it.each([
      '#',
      '+',
      '+/#',
      'own/#',
      'own/+',
      'own/+/inbox',
      '+/alice/#',
      'own/bob',
      'own/bob/#',
      'news/#',
      'news',
      'news/+/+',
      '/own/alice',
      'own/alice2',
      'own',
      '$SYS/#',
      '$SYS/broker/uptime',
      '$share/g/own/alice/x',
      'receipts/#',
      'receipts/own/alice/x',
      'presence/#',
      'socket/#',
    ])('%s', async filter => {
      const topic = encodeURIComponent(filter)
      for (const path of [
        `/v1/events?topic=${topic}`,
        `/v1/poll?timeout=0&topic=${topic}`,
        `/v1/presence?topic=${topic}`,
      ]) {
        expect(await get('alice', path)).toEqual(refused(filter))
        // Nor beside one that they may have.
        if (path.includes('presence')) continue
        expect(await get('alice', `${path}&topic=own/alice/x`)).toEqual(refused(filter))
      }
      const { request } = await socket('alice', 'topic=own/alice/x')
      expect(await request({ type: 'subscribe', topics: ['own/alice/y', filter] })).toMatchObject({
        type: 'error',
        status: 403,
        reason: 'topic-refused',
        parameter: 'topics[1]',
        detail: `This topic is not open to you: ${filter}`,
      })
      // Nothing of what was refused has changed what there is.
      expect(await request({ type: 'unsubscribe', topics: ['z'] })).toMatchObject({ topics: ['own/alice/x'] })
    })

    it.each([
      'own/bob/x',
      'news/sport',
      'own',
      'public/x',
      '/own/alice/x',
      'receipts/own/alice/x',
      'presence/x',
      'socket/x/out',
    ])('to publish to %s', async topic => {
      expect(await publish('alice', topic)).toEqual(refused(topic))
      const messages = [
        { topic: 'own/alice/x', payload: 'first' },
        { topic, payload: 'second' },
      ]
      const batch = await post('alice', '/v1/publish', { messages })
      expect(batch).toMatchObject({ ...refused(topic), body: { parameter: 'messages[1].topic' } })
      const { request } = await socket('alice')
      expect(await request({ type: 'publish', topic, payload: 'x' })).toMatchObject({
        type: 'error',
        status: 403,
        reason: 'topic-refused',
        parameter: 'topic',
      })
    })

    it.each(['$SYS/x', '$SYS/broker/uptime', '$x', 'own/+/x', 'own/alice/#', ''])(
      '%j is no topic to publish to',
      async topic => {
        for (const who of ['alice', 'editor', 'operator']) {
          const { status } = await publish(who, topic)
          expect([400, 403]).toContain(status)
          const { request } = await socket(who)
          expect(await request({ type: 'publish', topic, payload: 'x' })).toMatchObject({ type: 'error' })
        }
      },
    )

    it('all topics to those who are not known, but what is public', async () => {
      const asking = (path: string) => ask(gateway.urls, 'http', { path })
      expect((await asking('/v1/poll?timeout=0&topic=public/%23')).status).toBe(200)
      expect((await asking('/v1/poll?timeout=0&topic=%23')).status).toBe(403)
      expect((await asking('/v1/poll?timeout=0&topic=own/alice/x')).status).toBe(403)
      // A device’s name is none that rules go by.
      expect((await asking('/v1/poll?timeout=0&topic=own/alice/x&device=alice')).status).toBe(403)
      expect((await asking('/v1/presence')).status).toBe(403)
    })
  })

  it.each(['+', '#', 'a/b', 'alice/#', '/', 'a+', '$SYS'])(
    'somebody called %j gets no wider rule by that',
    async name => {
      const mine = `own/${name}/x`
      // Such a name is one level of a topic only where it is one: of the others, nothing is theirs.
      const isLevel = !/[+#/]/.test(name)
      const filters = ['own/#', 'own/+/x', 'own/alice/x', 'own/alice/#', '#']
      // One with a wildcard in the middle of a level is no filter at all.
      if (!/[^/][+#]|#./.test(mine)) filters.push(mine)
      for (const filter of filters) {
        const { status } = await get(name, `/v1/poll?timeout=0&topic=${encodeURIComponent(filter)}`)
        expect({ filter, status }).toEqual({ filter, status: filter === mine && isLevel ? 200 : 403 })
      }
      expect((await publish(name, 'own/alice/x')).status).toBe(403)
      expect((await publish(name, 'own/b/x')).status).toBe(403)
    },
  )

  it('$SYS is for those who are named, on every way, and not part of #', async () => {
    const all = await source('editor', 'topic=%23')
    const operator = await source('operator', 'topic=$SYS/%23')
    await operator.messages(5)
    expect(operator.of('message').every(({ topic }) => String(topic).startsWith('$SYS/'))).toBe(true)
    await publish('editor', 'news/sport', 'end')
    await eventually(() => all.payloads().includes('end'))
    expect(all.of('message').filter(({ topic }) => String(topic).startsWith('$'))).toEqual([])
    const { request } = await socket('operator')
    expect(await request({ type: 'subscribe', topics: ['$SYS/broker/+'] })).toMatchObject({ type: 'ok' })
    expect(await get('editor', '/v1/poll?timeout=0&topic=$SYS/%23')).toEqual(refused('$SYS/#'))
  })

  it('replay and what is retained obey them: a cursor gives nobody what they may not read', async () => {
    const before = (await publish('editor', 'own/alice/a', 'before')).body.id
    const state = { alice: 'state of alice', bob: 'state of bob' }
    for (const [user, payload] of Object.entries(state)) {
      await publish('editor', `own/${user}/state`, payload, '&retain=true')
      await publish('editor', `own/${user}/b`, `for ${user}`)
    }
    for (const from of [`cursor=${before}`, 'last=1000', '']) {
      const polled = await get('bob', `/v1/poll?timeout=0&topic=own/bob/%23&${from}`)
      const streamed = await source('bob', `topic=own/bob/%23&${from}`)
      const { told } = await socket('bob', `topic=own/bob/%23&${from}`)
      await streamed.live()
      await eventually(() => told.some(({ type }) => type === 'live'))
      const wanted = from === '' ? [state.bob] : [state.bob, 'for bob']
      for (const events of [polled.body.events, streamed.of('message'), told.filter(({ type }) => type === 'event')]) {
        const payloads = events.map(({ payload }: { payload?: unknown }) => payload)
        expect([...new Set(payloads)]).toEqual(wanted)
        expect(JSON.stringify(events)).not.toContain('alice')
      }
    }
    // The header comes before the parameter, and gives no more.
    const headers = { ...(await headersOf('bob')), 'last-event-id': before }
    const resumed = await openSource(`${gateway.urls.http}/v1/events?topic=own/bob/%23`, headers)
    onTestFinished(() => resumed.leave())
    await resumed.live()
    expect(resumed.payloads()).toEqual([state.bob, 'for bob'])
    // And a socket that takes up a filter from a cursor.
    const { request, events } = await socket('bob')
    expect(await request({ type: 'subscribe', topics: ['own/alice/#'], cursor: before })).toMatchObject({ status: 403 })
    expect(await request({ type: 'subscribe', topics: ['own/bob/#'], cursor: before })).toMatchObject({ type: 'ok' })
    await eventually(() => events().length === 2)
    expect(events().map(({ payload }) => payload)).toEqual([state.bob, 'for bob'])
  })

  it('receipts are for those who may read the event, and told to those who may read receipts', async () => {
    const { id } = (await publish('editor', 'own/alice/job', 'do it', '&receiptFrom=alice&receiptWithin=60s')).body
    const receipt = { id, status: 'processed' }
    const hidden = { reason: 'topic-refused', parameter: 'id', detail: 'The topic of this event is not open to you' }
    expect(await post('bob', '/v1/receipts', receipt)).toMatchObject({ status: 403, body: hidden })
    expect(await get('bob', `/v1/receipts?id=${id}`)).toMatchObject({ status: 403, body: hidden })
    const { request } = await socket('bob')
    expect(await request({ type: 'receipt', ...receipt })).toMatchObject({ type: 'error', status: 403, ...hidden })
    // Nothing that is refused says what the topic is.
    expect(JSON.stringify(await get('bob', `/v1/receipts?id=${id}`))).not.toContain('alice')
    // One among several is refused by itself, and the name of a device is not what one says it is.
    const several = { receipts: [receipt, { id: id.replace(/\d+$/, '999999'), status: 'received' }] }
    const answered = await post('bob', '/v1/receipts?device=alice', several)
    expect(answered).toMatchObject({
      status: 200,
      body: { receipts: [{ problem: { status: 403 } }, { problem: { status: 404 } }] },
    })
    expect(await get('alice', `/v1/receipts?id=${id}`)).toMatchObject({ body: { receipts: [] } })
    expect(await post('alice', '/v1/receipts?device=bob', receipt)).toMatchObject({
      status: 201,
      body: { device: 'alice' },
    })
    // The right to its receipts is enough to see them, and not to give one.
    expect(await get('courier', `/v1/receipts?id=${id}`)).toMatchObject({
      status: 200,
      body: { receipts: [{ device: 'alice' }] },
    })
    expect(await post('courier', '/v1/receipts', receipt)).toMatchObject({ status: 403, body: hidden })
    expect((await get('courier', '/v1/poll?timeout=0&topic=receipts/own/alice/%23')).status).toBe(200)
    expect((await get('courier', '/v1/poll?timeout=0&topic=receipts/%23')).status).toBe(403)
  })

  it('presence is for those who may read what is listened to', async () => {
    const stream = await source('alice', 'topic=own/alice/%23')
    await stream.live()
    expect(await get('bob', '/v1/presence?topic=own/alice/x')).toEqual(refused('own/alice/x'))
    expect(await get('bob', '/v1/presence?topic=own/alice/%23')).toEqual(refused('own/alice/#'))
    expect(await get('bob', '/v1/presence')).toEqual(refused('#'))
    const seen = await get('alice', '/v1/presence?topic=own/alice/%23')
    expect(seen).toMatchObject({ status: 200, body: { count: 1, listeners: [{ user: 'alice', transport: 'sse' }] } })
    expect((await get('editor', '/v1/presence')).status).toBe(200)
  })

  it('a batch of which one message is refused publishes none', async () => {
    const stream = await source('editor', 'topic=own/alice/batch')
    await stream.live()
    const messages = Array.from({ length: 100 }, (_, index) => ({ topic: 'own/alice/batch', payload: `${index}` }))
    const answer = await post('alice', '/v1/publish', { messages: [...messages, { topic: 'own/bob/x', payload: 'x' }] })
    expect(answer).toMatchObject({ status: 403, body: { parameter: 'messages[100].topic' } })
    await publish('alice', 'own/alice/batch', 'end')
    await stream.messages(1)
    expect(stream.payloads()).toEqual(['end'])
  })

  it('a socket’s own topics need none, and those of other connections do', async () => {
    const { request, told, events } = await socket('alice')
    await eventually(() => told.length > 0)
    const [welcome] = told as unknown as [{ topics: { in: string; out: string } }]
    const other = await socket('bob')
    await eventually(() => other.told.length > 0)
    const [theirs] = other.told as unknown as [{ topics: { in: string; out: string } }]
    expect(await request({ type: 'send', payload: 'up' })).toMatchObject({ type: 'ok' })
    for (const topic of [theirs.topics.in, theirs.topics.out]) {
      expect(await request({ type: 'subscribe', topics: [topic] })).toMatchObject({ status: 403 })
      expect(await request({ type: 'publish', topic, payload: 'x' })).toMatchObject({ status: 403 })
    }
    expect(await request({ type: 'subscribe', topics: [welcome.topics.out] })).toMatchObject({ type: 'ok' })
    expect(other.events()).toEqual([])
    expect(events()).toEqual([])
  })

  it('a token’s own rules hold beside those of the configuration', async () => {
    const mqtt = { publish: ['extra/%u'], subscribe: ['extra/%u/#'] }
    const headers = await headersOf('alice', { mqtt })
    const polled = (topic: string) => ask(gateway.urls, 'http', { path: `/v1/poll?timeout=0&topic=${topic}`, headers })
    expect((await polled('extra/alice/x')).status).toBe(200)
    expect((await polled('extra/bob/x')).status).toBe(403)
    expect((await polled('own/alice/x')).status).toBe(200)
    const published = (topic: string) =>
      ask(gateway.urls, 'http', { method: 'POST', path: `/v1/publish?topic=${topic}`, body: 'x', headers })
    expect((await published('extra/alice')).status).toBe(201)
    expect((await published('extra/alice/x')).status).toBe(403)
  })
})
