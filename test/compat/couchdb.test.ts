import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runInNewContext } from 'node:vm'
import mqtt from 'mqtt'
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { registerCouchdb } from '../../src/compat/couchdb.js'
import type { OpenPolls } from '../../src/transports/poll/open-polls.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { basic, bearer } from '../helpers/identities.js'
import { People } from '../helpers/people.js'
import { EventStreamParser } from '../helpers/sse-parser.js'
import { eventually } from '../helpers/wait.js'
import { type Rig, type RigOptions, startRig } from '../transports/rig.js'

let rig: Rig
let polls: Pick<OpenPolls, 'close'>
const start = async (options: Partial<RigOptions> = {}, timeout = 60_000): Promise<Rig> => {
  rig = await startRig({
    register: (app, delivery) => {
      polls = registerCouchdb(app, delivery, { prefix: '/couchdb', timeout })
    },
    ...options,
  })
  return rig
}
const withJsonp = { push: { jsonp: true } }

interface Row {
  seq: number
  id: string
  changes: { rev: string }[]
  topic: string
  doc?: Record<string, unknown>
}
interface Changes {
  results: Row[]
  last_seq: number
  pending: number
}

const ask = (path: string, init: RequestInit = {}): Promise<Response> => fetch(`${rig.url}/couchdb/${path}`, init)
const changes = async (query: string, database = 'notifications'): Promise<Changes> => {
  const answer = await ask(`${database}/_changes?include_docs=true&${query}`)
  expect(answer.status).toBe(200)
  return (await answer.json()) as Changes
}
const messages = ({ results }: Pick<Changes, 'results'>) => results.map(({ doc }) => doc?.['msg'])
/** What a script calls the function with, as a browser would. */
const calledWith = (script: string): unknown => {
  let value: unknown
  runInNewContext(script, { C: (answer: unknown) => (value = JSON.parse(JSON.stringify(answer))) })
  return value
}
const script = async (path: string): Promise<Changes> => {
  const answer = await ask(path)
  expect(answer.status).toBe(200)
  return calledWith(await answer.text()) as Changes
}
/** From now on, time passes with `pass` alone. */
const stopTime = (): void => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
}
const pass = (milliseconds: number): void => void vi.advanceTimersByTime(milliseconds)

const waiting = (count = 1) =>
  eventually(() => rig.hub.counters.subscribers === count && rig.hub.counters.catchingUp === 0)

/** A feed that goes on. */
const listen = async (query: string, headers: Record<string, string> = {}) => {
  const request = get(`${rig.url}/couchdb/notifications/_changes?${query}`, { headers })
  onTestFinished(() => void request.destroy())
  const [response] = await once(request, 'response')
  expect(response.statusCode).toBe(200)
  const feed = { text: '', ended: false, headers: response.headers, close: () => request.destroy() }
  response.setEncoding('utf8')
  response.on('data', (chunk: string) => (feed.text += chunk))
  response.on('end', () => (feed.ended = true))
  response.on('error', () => {})
  return feed
}
const rowsOf = ({ text }: { text: string }): (Row & { last_seq?: number })[] =>
  text
    .split('\n')
    .slice(0, -1)
    .filter(line => line !== '')
    .map(line => JSON.parse(line))

describe('a database', () => {
  afterEach(() => rig.close())

  it('tells its name and the place to go on from', async () => {
    await start()
    await rig.publish('notifications', 'one')
    await rig.publish('other', 'two')
    const answer = await ask('notifications')
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'no-store',
    })
    expect(await answer.json()).toEqual({
      ...{ db_name: 'notifications', update_seq: 2, committed_update_seq: 2, instance_start_time: '0' },
    })
    expect(await (await ask('notifications/')).json()).toMatchObject({ update_seq: 2 })
  })

  it('is a topic and all below it, whose name may have slashes', async () => {
    await start()
    await rig.publish('/news/europe', 'top')
    await rig.publish('/news/europe/sport', 'below')
    await rig.publish('/news/europeans', 'beside')
    expect(messages(await changes('', '%2Fnews%2Feurope'))).toEqual(['top', 'below'])
    expect(await (await ask('%2Fnews%2Feurope')).json()).toMatchObject({ db_name: '/news/europe' })
  })

  it.each([
    ['_all_dbs', 'The name of a database must not begin with _.'],
    ['a%23', 'The name of a database is the beginning of a topic, without the wildcards + and #.'],
    ['a%2B/_changes', 'The name of a database is the beginning of a topic, without the wildcards + and #.'],
    ['a%00', 'The name of a database must not hold U+0000.'],
  ])('cannot be called %s', async (path, reason) => {
    await start()
    const answer = await ask(path)
    expect(answer.status).toBe(400)
    expect(await answer.json()).toEqual({ error: 'illegal_database_name', reason })
  })

  it('cannot be written to', async () => {
    await start()
    for (const [path, method, allowed] of [
      ['notifications', 'POST', 'GET, HEAD'],
      ['notifications/', 'PUT', 'GET, HEAD'],
      ['notifications/_changes', 'PUT', 'GET, HEAD, POST'],
    ] as const) {
      const answer = await ask(path, { method, body: '{}' })
      expect([answer.status, answer.headers.get('allow')]).toEqual([405, `${allowed}, OPTIONS`])
      const reason = `Only ${allowed.replaceAll(', ', ',')} allowed`
      expect(await answer.json()).toEqual({ error: 'method_not_allowed', reason })
    }
  })

  it('answers HEAD with the head', async () => {
    await start()
    for (const feed of ['normal', 'longpoll', 'continuous', 'eventsource']) {
      const answer = await ask(`notifications/_changes?feed=${feed}`, { method: 'HEAD' })
      expect([answer.status, await answer.text()]).toEqual([200, ''])
    }
    expect(rig.hub.counters.subscribers).toBe(0)
  })
})

describe('the normal feed', () => {
  afterEach(() => rig.close())

  it('has what there is since a place, and where to go on', async () => {
    await start()
    for (const text of ['1', '2', '3']) await rig.publish('notifications', text)
    await rig.publish('other', 'x')
    expect(messages(await changes('since=1'))).toEqual(['2', '3'])
    expect(await changes('since=1')).toMatchObject({ results: [{ seq: 2 }, { seq: 3 }], last_seq: 4, pending: 0 })
    expect(await changes('since=now')).toEqual({ results: [], last_seq: 4, pending: 0 })
    expect(messages(await changes(''))).toEqual(['1', '2', '3'])
  })

  it('has no documents unless they are asked for', async () => {
    await start()
    await rig.publish('notifications', '1')
    const { results } = (await (await ask('notifications/_changes')).json()) as Changes
    expect(results.map(row => Object.keys(row))).toEqual([['seq', 'id', 'changes', 'topic']])
  })

  it('has as many as are wanted, and tells that there may be more', async () => {
    await start()
    for (const text of ['1', '2', '3']) await rig.publish('notifications', text)
    expect(await changes('limit=2')).toMatchObject({ results: [{ seq: 1 }, { seq: 2 }], last_seq: 2, pending: 1 })
    // As in CouchDB.
    expect(await changes('limit=0')).toMatchObject({ results: [{ seq: 1 }], last_seq: 1 })
  })

  it('is the list that CouchDB answers with, byte for byte', async () => {
    await start()
    const { id } = await rig.publish('notifications', 'hello')
    const text = await (await ask('notifications/_changes?include_docs=true')).text()
    const rev = /"rev":"(1-[0-9a-f]{32})"/.exec(text)?.[1]
    expect(text).toBe(
      `{"results":[{"seq":1,"id":"${id}","changes":[{"rev":"${rev}"}],"topic":"notifications",` +
        `"doc":{"_id":"${id}","_rev":"${rev}","msg":"hello"}}],"last_seq":1,"pending":0}\n`,
    )
  })

  it('of events that are gone has what is left', async () => {
    await start({ maxEvents: 3 })
    for (const text of ['1', '2', '3', '4', '5']) await rig.publish('notifications', text)
    await rig.journal.trim()
    const { results } = await changes('since=1')
    expect(results.map(({ seq }) => seq)).toEqual([3, 4, 5])
  })

  it('has changes alone, and none twice, where the journal lets go of some while they are read', async () => {
    await start({ maxEvents: 3, recent: { maxEvents: 0, maxBytes: 0 } })
    await rig.publish('notifications/state', 'state', { retain: true })
    for (const text of ['2', '3']) await rig.publish('notifications', text)
    const { journal } = rig
    const readPortion = journal.read.bind(journal)
    journal.read = async query => {
      journal.read = readPortion
      for (const text of ['4', '5']) await rig.publish('notifications', text)
      await journal.trim()
      return readPortion(query)
    }
    const { results, last_seq: since } = await changes('since=0')
    const rest = await changes(`since=${since}`)
    expect(messages({ results: [...results, ...rest.results] })).toEqual(['3', '4', '5'])
  })

  it('of a place in another journal, which had come farther, begins at the start', async () => {
    await start()
    await rig.publish('notifications', '1')
    expect(messages(await changes('since=57'))).toEqual(['1'])
  })

  it('of ten thousand has all, in order', async () => {
    await start()
    const texts = Array.from({ length: 10_000 }, (_, index) => String(index))
    await Promise.all(texts.map(text => rig.publish('notifications', text)))
    expect(messages(await changes(''))).toEqual(texts)
  })
})

describe('a long-poll', () => {
  afterEach(() => rig.close())

  it('waits for a change, and is answered with it', async () => {
    await start()
    const answer = changes('feed=longpoll&since=now')
    await waiting()
    await rig.publish('other', 'x')
    await rig.publish('notifications/a', 'hello')
    expect(await answer).toMatchObject({
      results: [{ seq: 2, topic: 'notifications/a', doc: { msg: 'hello' } }],
      last_seq: 2,
      pending: 0,
    })
  })

  it('is answered at once with what was missed', async () => {
    await start()
    for (const text of ['1', '2', '3']) await rig.publish('notifications', text)
    expect(messages(await changes('feed=longpoll&since=1'))).toEqual(['2', '3'])
  })

  it('is answered with nothing when its time is up: what it asks for, and the configured one at the most', async () => {
    await start({}, 300)
    await rig.publish('other', 'x')
    stopTime()
    for (const [query, time] of [
      ['timeout=100', 100],
      ['timeout=100000', 300],
      ['', 300],
    ] as const) {
      const answer = changes(`feed=longpoll&since=0&${query}`)
      await waiting()
      pass(time - 1)
      expect(rig.hub.counters.subscribers).toBe(1)
      pass(1)
      expect(await answer).toEqual({ results: [], last_seq: 1, pending: 0 })
    }
  })

  it('with a heartbeat waits without an end, and shows that it is alive with line feeds', async () => {
    await start({}, 100)
    stopTime()
    const asked = listen('feed=longpoll&since=now&include_docs=true&heartbeat=1000')
    await waiting()
    pass(1000)
    const feed = await asked
    for (let beats = 2; beats < 100; beats++) pass(1000)
    await eventually(() => feed.text.length >= '{"results":['.length + 99)
    expect([feed.text.endsWith('[\n'.padEnd(100, '\n')), feed.ended]).toEqual([true, false])
    await Promise.all([rig.publish('notifications', 'one'), rig.publish('notifications', 'two')])
    await eventually(() => feed.ended)
    expect(feed.text).toMatch(/^\{"results":\[\n\n+\{"seq":1,/)
    expect(messages(JSON.parse(feed.text))).toEqual(['one', 'two'])
    expect(JSON.parse(feed.text)).toMatchObject({ last_seq: 2, pending: 0 })
  })

  it('is answered when the gateway shuts down, with the place to go on from', async () => {
    await start()
    const answer = changes('feed=longpoll&since=now')
    await waiting()
    polls.close()
    expect(await answer).toEqual({ results: [], last_seq: 0, pending: 0 })
    const refused = await ask('notifications/_changes?feed=longpoll')
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '5'])
    expect(await refused.json()).toEqual({ error: 'shutting_down', reason: 'The gateway is shutting down.' })
  })

  it('leaves nothing behind when its client goes', async () => {
    await start()
    const leaving = new AbortController()
    const answer = ask('notifications/_changes?feed=longpoll&since=now&heartbeat=1000', { signal: leaving.signal })
    await waiting()
    leaving.abort()
    await expect(answer).rejects.toThrow()
    await eventually(() => rig.hub.counters.subscribers === 0)
    expect(rig.limits.open).toBe(0)
    expect(rig.attendances.every(({ left }) => left)).toBe(true)
  })

  it('has one name in presence for all that one client asks, unless it says another one', async () => {
    await start()
    for (const more of ['', '', '&device=kitchen']) await changes(`feed=longpoll&since=0&timeout=0${more}`)
    const [first, second, third] = rig.attendances.map(({ device }) => device)
    expect(first).toMatch(/^couchdb-[0-9a-f]{16}$/)
    expect([second, third]).toEqual([first, 'kitchen'])
  })

  it('misses nothing and gets nothing twice while much comes', async () => {
    await start()
    const texts = Array.from({ length: 200 }, (_, index) => String(index))
    const got: unknown[] = []
    const asking = (async () => {
      let since: number | 'now' = 0
      while (got.length < texts.length) {
        const answer: Changes = await changes(`feed=longpoll&since=${since}`)
        got.push(...messages(answer))
        since = answer.last_seq
      }
    })()
    for (const text of texts) {
      await rig.publish('notifications', text)
      if (Number(text) % 7 === 0) await new Promise(resolve => setImmediate(resolve))
    }
    await asking
    expect(got).toEqual(texts)
  })
})

describe('JSONP', () => {
  afterEach(() => rig.close())

  it('is a script that calls a function with the answer', async () => {
    await start(withJsonp)
    await rig.publish('notifications', 'hello')
    for (const path of ['notifications?callback=C', 'notifications/_changes?callback=C&_1290000000000=']) {
      const answer = await ask(path)
      expect(Object.fromEntries(answer.headers)).toMatchObject({
        'content-type': 'application/javascript; charset=utf-8',
        'x-content-type-options': 'nosniff',
        'cache-control': 'no-store',
      })
      const text = await answer.text()
      expect(text).toMatch(/^\/\*\*\/C\(\{.*\}\);\n$/)
      expect(calledWith(text)).toMatchObject(
        path.includes('_changes') ? { last_seq: 1 } : { db_name: 'notifications', update_seq: 1 },
      )
    }
  })

  it('gives a long-poll one row in each answer, because pages look at the first alone', async () => {
    await start(withJsonp)
    for (const text of ['1', '2', '3']) await rig.publish('notifications', text)
    const got: unknown[] = []
    for (let since = 0; since < 3; ) {
      const answer = await script(`notifications/_changes?feed=longpoll&include_docs=true&since=${since}&callback=C`)
      expect(answer.results).toHaveLength(1)
      got.push(...messages(answer))
      since = answer.last_seq
    }
    expect(got).toEqual(['1', '2', '3'])
    expect((await script('notifications/_changes?feed=longpoll&limit=5&callback=C')).results).toHaveLength(3)
  })

  it('gives two messages of one moment one after the other', async () => {
    await start(withJsonp)
    const path = 'notifications/_changes?feed=longpoll&include_docs=true&callback=C&since='
    const first = script(`${path}now`)
    await waiting()
    await Promise.all([rig.publish('notifications', 'one'), rig.publish('notifications', 'two')])
    expect(messages(await first)).toEqual(['one'])
    expect(messages(await script(`${path}${(await first).last_seq}`))).toEqual(['two'])
  })

  it('with a heartbeat is still one script', async () => {
    await start(withJsonp)
    stopTime()
    const asked = listen('feed=longpoll&since=now&include_docs=true&heartbeat=1000&callback=C')
    await waiting()
    pass(2000)
    const feed = await asked
    await eventually(() => feed.text.endsWith('\n\n'))
    await rig.publish('notifications', 'one')
    await eventually(() => feed.ended)
    expect(messages(calledWith(feed.text) as Changes)).toEqual(['one'])
  })

  it.each(['', '%3Cb%3E', 'a(', 'a b', `${'a'.repeat(129)}`, 'a%0A'])('has no function called %j', async callback => {
    await start(withJsonp)
    for (const path of ['notifications', 'notifications/_changes']) {
      const answer = await ask(`${path}?callback=${callback}`)
      expect([answer.status, answer.headers.get('content-type')]).toEqual([400, 'application/json; charset=utf-8'])
      expect(await answer.json()).toEqual({
        error: 'bad_request',
        reason: 'callback must have 1 to 128 letters, digits, and . _ [ ].',
      })
    }
  })

  it('is refused where it is off', async () => {
    await start()
    for (const path of ['notifications', 'notifications/_changes']) {
      const answer = await ask(`${path}?callback=C`)
      expect([answer.status, answer.headers.get('content-type')]).toEqual([400, 'application/json; charset=utf-8'])
      expect(await answer.json()).toEqual({
        error: 'bad_request',
        reason: 'callback is not available here: push.jsonp is off.',
      })
    }
  })

  it('is not for feeds that go on', async () => {
    await start(withJsonp)
    expect((await ask('notifications/_changes?feed=continuous&callback=C')).status).toBe(400)
  })
})

describe('the continuous feed', () => {
  afterEach(() => rig.close())

  it('has a line for each change, of what there is and of what comes', async () => {
    await start()
    await rig.publish('notifications', '1')
    const feed = await listen('feed=continuous&include_docs=true')
    await waiting()
    await rig.publish('other', 'x')
    await rig.publish('notifications', 'a\nb')
    await eventually(() => rowsOf(feed).length === 2)
    expect(messages({ results: rowsOf(feed) })).toEqual(['1', 'a\nb'])
    expect(feed.headers['content-type']).toBe('application/json; charset=utf-8')
    feed.close()
    await eventually(() => rig.hub.counters.subscribers === 0)
    expect(rig.limits.open).toBe(0)
  })

  it('ends with the place to go on from when nothing comes for its time', async () => {
    await start()
    await rig.publish('notifications', '1')
    await rig.publish('other', 'x')
    stopTime()
    const feed = await listen('feed=continuous&timeout=1000')
    await waiting()
    pass(900)
    expect(rig.hub.counters.subscribers).toBe(1)
    pass(300)
    await eventually(() => feed.ended)
    expect(rowsOf(feed)).toEqual([expect.objectContaining({ seq: 1 }), { last_seq: 2, pending: 0 }])
  })

  it('ends after as many as are wanted', async () => {
    await start()
    for (const text of ['1', '2', '3']) await rig.publish('notifications', text)
    const feed = await listen('feed=live&limit=2')
    await eventually(() => feed.ended)
    expect(rowsOf(feed)).toEqual([
      expect.objectContaining({ seq: 1 }),
      expect.objectContaining({ seq: 2 }),
      { last_seq: 2, pending: 1 },
    ])
  })

  it('with a heartbeat goes on, and has empty lines', async () => {
    await start()
    stopTime()
    const feed = await listen('feed=continuous&heartbeat=1000&timeout=10')
    await waiting()
    await eventually(() => feed.text === '\n\n')
    for (const lines of [3, 4]) {
      pass(1200)
      await eventually(() => feed.text.length === lines)
    }
    expect([feed.text.trim(), feed.ended]).toEqual(['', false])
  })

  it('ends with the place to go on from when the gateway shuts down', async () => {
    await start()
    await rig.publish('notifications', '1')
    const feed = await listen('feed=continuous')
    await waiting()
    rig.options.connections.close()
    await eventually(() => feed.ended)
    expect(rowsOf(feed).at(-1)).toEqual({ last_seq: 1, pending: 0 })
  })
})

describe('changes that are asked for with POST', () => {
  afterEach(() => rig.close())

  const post = (query: string, body?: string) =>
    ask(`notifications/_changes?include_docs=true&${query}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      ...(body !== undefined && { body }),
    })

  it.each(['{}', '{"limit":1}', ''])('are those for GET: %j', async body => {
    await start()
    await rig.publish('notifications', 'one')
    const answer = await post('feed=longpoll&since=0', body)
    expect(answer.status).toBe(200)
    expect(messages((await answer.json()) as Changes)).toEqual(['one'])
  })

  it('come when there are some', async () => {
    await start()
    const answer = post('feed=longpoll&since=now', '{}')
    await waiting()
    await rig.publish('notifications', 'one')
    expect(messages((await (await answer).json()) as Changes)).toEqual(['one'])
  })

  it.each([
    ['', '{"doc_ids":["a"]}', 'doc_ids is not available here.'],
    ['filter=_doc_ids', '{"doc_ids":["a"]}', /is not available here\.$/],
    ['', '{"selector":{}}', 'selector is not available here.'],
    ['callback=C', '{}', 'callback is not available here.'],
    ['', '[', 'The body must be JSON, in UTF-8.'],
    ['', 'null', 'The body must be a JSON object.'],
  ])('are refused where only some are wanted, or with what is not right (%s %s)', async (query, body, reason) => {
    await start(withJsonp)
    const answer = await post(query, body)
    expect(answer.status).toBe(400)
    expect(await answer.json()).toMatchObject({ reason: expect.stringMatching(reason) })
  })
})

describe('the feed for EventSource', () => {
  afterEach(() => rig.close())

  const source = async (query: string, headers: Record<string, string> = {}) => {
    const feed = await listen(`feed=eventsource&${query}`, headers)
    expect(feed.headers['content-type']).toBe('text/event-stream; charset=utf-8')
    return () => {
      const parser = new EventStreamParser()
      parser.push(Buffer.from(feed.text))
      const got = parser.events.filter(({ type }) => type === 'message' || type === 'heartbeat')
      return { got, parser, ended: feed.ended }
    }
  }

  it('has a message for each change, whose id is the place', async () => {
    await start()
    await rig.publish('notifications', '1')
    await rig.publish('other', 'x')
    const read = await source('include_docs=true')
    await waiting()
    await eventually(() => read().parser.lastEventId === '2')
    await rig.publish('notifications', 'a\r\nb')
    await eventually(() => read().got.length === 2)
    expect(read().got.map(({ lastEventId }) => lastEventId)).toEqual(['1', '3'])
    expect(messages({ results: read().got.map(({ data }) => JSON.parse(data)) })).toEqual(['1', 'a\r\nb'])
    expect(read().parser).toMatchObject({ retry: 2000, emptyBlocks: 0 })
  })

  it('tells its number in an event with a name and data', async () => {
    await start()
    await rig.publish('other', 'x')
    const read = await source('since=now')
    await eventually(() => read().parser.lastEventId !== '')
    expect(read().parser.events).toEqual([
      { type: 'welcome', data: '{}', lastEventId: '' },
      { type: 'live', data: '{"last_seq":1}', lastEventId: '1' },
    ])
  })

  it('gives clients of event streams a reason that will pass with 200, the time to come back after and the event end', async () => {
    await start({ config: { limits: { connectionsPerAddress: 1 } } })
    await source('since=now')
    await waiting()
    const url = `${rig.url}/couchdb/notifications/_changes?feed=eventsource`
    const { status } = await fetch(url)
    const answer = await fetch(url, { headers: { accept: 'text/event-stream' } })
    expect([status, answer.status, answer.headers.get('content-type')]).toEqual([
      ...[429, 200, 'text/event-stream; charset=utf-8'],
    ])
    expect(await answer.text()).toMatch(/^retry: 10000\nevent: end\ndata: {"reason":"too-many-from-address",.*}\n\n$/)
  })

  it.each([
    { 'last-event-id': '2' },
    { query: 'last-event-id=2' },
    { query: 'lastEventId=2&since=1' },
    { query: 'last_event_id=1&Last-Event-ID=2' },
    { query: 'since=2', 'last-event-id': '1' },
    // Of a journal that was lost.
    { query: 'since=2', 'last-event-id': '900' },
    // Of somebody else, who has other ids.
    { query: 'since=2', 'last-event-id': 'mi95vp7k1q3x8za-5' },
  ])('goes on after %o', async ({ query = 'since=0', ...headers }) => {
    await start()
    for (const text of ['1', '2', '3']) await rig.publish('notifications', text)
    const read = await source(query, headers)
    await eventually(() => read().got.length > 0)
    expect(read().got.map(({ lastEventId }) => lastEventId)).toEqual(['3'])
  })

  it('has heartbeats with the place, and no end', async () => {
    await start({ push: { heartbeat: 20_000 } })
    await rig.publish('other', 'x')
    stopTime()
    const read = await source('since=now')
    await waiting()
    for (const beats of [1, 2]) {
      pass(24_000)
      await eventually(() => read().got.length === beats)
    }
    expect(read().got).toEqual(Array(2).fill({ type: 'heartbeat', data: '', lastEventId: '1' }))
    expect(read().ended).toBe(false)
  })
})

describe('over HTTP/2', () => {
  afterEach(() => rig.close())

  const open = async (query: string) => {
    const stream = rig.http2().request({ ':path': `/couchdb/notifications/_changes?include_docs=true&${query}` })
    const feed = { text: '', ended: false, close: () => stream.close() }
    stream.setEncoding('utf8')
    stream.on('data', (chunk: string) => (feed.text += chunk))
    stream.on('end', () => (feed.ended = true))
    return feed
  }

  it('a long-poll with heartbeats is answered', async () => {
    await start()
    stopTime()
    const feed = await open('feed=longpoll&heartbeat=1000')
    await waiting()
    pass(2000)
    await eventually(() => feed.text.endsWith('\n\n'))
    await rig.publish('notifications', 'one')
    await eventually(() => feed.ended)
    expect(messages(JSON.parse(feed.text))).toEqual(['one'])
  })

  it('a continuous feed has its lines, and its end', async () => {
    await start()
    const feed = await open('feed=continuous&limit=2')
    await waiting()
    await rig.publish('notifications', 'one')
    await eventually(() => rowsOf(feed).length === 1)
    await rig.publish('notifications', 'two')
    await eventually(() => feed.ended)
    expect(messages({ results: rowsOf(feed) })).toEqual(['one', 'two', undefined])
    expect(rowsOf(feed).at(-1)).toEqual({ last_seq: 2, pending: 0 })
  })
})

describe('what is wrong', () => {
  afterEach(() => rig.close())

  it.each([
    ['feed=other', 'feed must be normal, longpoll, continuous or eventsource.'],
    ['since=-1', 'since must be a whole number, or now.'],
    ['since=1e3', 'since must be a whole number, or now.'],
    ['since=99999999999999999', 'since must be a whole number, or now.'],
    ['limit=x', 'limit must be a whole number.'],
    ['timeout=-5', 'timeout must be a whole number.'],
    ['heartbeat=soon', 'heartbeat must be a whole number of milliseconds, or true.'],
    ['filter=_view', 'filter is not available here.'],
    ['descending=true', 'descending is not available here.'],
  ])('%s is said as CouchDB says it', async (query, reason) => {
    await start()
    const answer = await ask(`notifications/_changes?${query}`)
    expect([answer.status, answer.headers.get('cache-control')]).toEqual([400, 'no-store'])
    expect(await answer.json()).toEqual({ error: 'query_parse_error', reason })
  })

  it('what is not known is ignored', async () => {
    await start()
    await rig.publish('notifications', '1')
    const query = 'style=all_docs&conflicts=true&_1290000000000=&heartbeat=false&descending=false&since=57&since=0'
    expect(messages(await changes(query))).toEqual(['1'])
  })

  it('documents, and all else that is not here, are missing', async () => {
    await start()
    for (const path of ['notifications/some-id', 'notifications/_design/a/_view/b', 'notifications/_changes/']) {
      const answer = await ask(path)
      expect([path, answer.status, await answer.text()]).toEqual([
        path,
        404,
        '{"error":"not_found","reason":"missing"}\n',
      ])
    }
  })

  it.each([
    ['notifications/_bulk_get?revs=true', 'POST'],
    ['notifications/_revs_diff', 'POST'],
    ['notifications/_local/abc', 'PUT'],
    ['notifications/id?revs=true&open_revs=%5B%221-a%22%5D', 'GET'],
  ])('replication (%s) is told what is not there', async (path, method) => {
    await start()
    const answer = await ask(path, { method, ...(method !== 'GET' && { body: '{}' }) })
    const { error, reason } = (await answer.json()) as { error: string; reason: string }
    expect([answer.status, error]).toEqual([404, 'not_found'])
    expect(reason).toMatch(/no replication: read GET .*_changes/)
  })

  it('pages of other origins may ask with the headers that jQuery.couch sends', async () => {
    await start({ push: { origins: ['https://app.example'] } })
    const headers = {
      origin: 'https://app.example',
      'access-control-request-method': 'GET',
      'access-control-request-headers': 'content-type',
    }
    const { headers: said } = await ask('notifications/', { method: 'OPTIONS', headers })
    expect(said.get('access-control-allow-origin')).toBe('https://app.example')
    expect(said.get('access-control-allow-headers')?.split(', ')).toContain('content-type')
  })

  it('says so when the journal cannot be read', async () => {
    await start({ recent: { maxEvents: 0, maxBytes: 0 } })
    await rig.publish('notifications', '1')
    rig.journal.read = () => Promise.reject(new Error('the disk is away'))
    const answer = await ask('notifications/_changes')
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5'])
    expect(answer.headers.get('content-type')).toBe('application/json; charset=utf-8')
    expect(await answer.json()).toEqual({
      error: 'journal_unavailable',
      reason: 'The journal is temporarily unavailable.',
    })
  })

  it('counts what stays open', async () => {
    await start({ config: { limits: { connectionsPerAddress: 1 } } })
    const first = changes('feed=longpoll&since=now')
    await waiting()
    const second = await ask('notifications/_changes?feed=longpoll')
    expect([second.status, (await second.json()) as unknown]).toEqual([
      429,
      { error: 'too_many_from_address', reason: 'Too many connections from your address.' },
    ])
    await rig.publish('notifications', '1')
    expect(messages(await first)).toEqual(['1'])
  })
})

describe('CouchDB’s URLs of a whole gateway', () => {
  const open = async (config: Parameters<typeof startTestGateway>[0] = {}): Promise<TestGateway> => {
    const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
    onTestFinished(() => gateway.close())
    await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
    return gateway
  }
  const read = async (gateway: TestGateway, path: string): Promise<Changes> => {
    const answer = await fetch(`${gateway.urls.http}${path}`)
    expect(answer.status).toBe(200)
    return (await answer.json()) as Changes
  }

  it('bring any payload that MQTT has', async () => {
    const gateway = await open()
    const client = await mqtt.connectAsync(gateway.urls.mqtt.replace('mqtt:', 'tcp:'))
    onTestFinished(() => client.endAsync(true))
    const texts = [
      ...['', '"quotes" \\ and \\" backslashes', 'line\r\nbreaks\n\u2028\u2029', '😀 emoji', '</script><script>'],
      ...['{"open":', '0', ' {"spaced" : true } ', '\u0000', 'a'.repeat(1024 ** 2)],
    ]
    const binary = Buffer.from([0, 255, 254, 10, 13])
    for (const payload of [...texts, binary]) await client.publishAsync('notifications/x', payload, { qos: 1 })
    const { results } = await read(gateway, '/couchdb/notifications/_changes?include_docs=true')
    expect(results.map(({ doc: { _id, _rev, ...fields } = {} }) => fields)).toEqual([
      ...texts.map(text => (text.includes('spaced') ? { spaced: true } : { msg: text })),
      { payloadBase64: binary.toString('base64') },
    ])
    const ids = results.map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
  })

  it('can begin at /, beside the pages', async () => {
    const gateway = await open({ compat: { couchdb: { prefix: '/' }, pere: 'off', rrr: 'off' } })
    const { http } = gateway.urls
    await fetch(`${http}/v1/publish?topic=notifications`, { method: 'POST', body: 'hello' })
    expect(await read(gateway, '/notifications')).toMatchObject({ db_name: 'notifications' })
    expect(messages(await read(gateway, '/notifications/_changes?include_docs=true'))).toEqual(['hello'])
    // With a slash, as jQuery.couch and PouchDB ask; a browser that opens it gets a page, and a directory of pages is one.
    expect(await read(gateway, '/notifications/')).toMatchObject({ db_name: 'notifications', instance_start_time: '0' })
    expect((await fetch(`${http}/notifications/`, { method: 'HEAD' })).status).toBe(200)
    const opened = await fetch(`${http}/notifications/`, { headers: { accept: 'text/html,*/*;q=0.8' } })
    expect([opened.status, opened.headers.get('content-type')]).toEqual([404, 'text/html; charset=utf-8'])
    for (const path of ['/', '/index.html', '/app.js', '/styles/']) {
      const answer = await fetch(http + path)
      expect([path, answer.headers.get('content-type')]).not.toEqual([path, 'application/json; charset=utf-8'])
    }
    expect((await fetch(`${http}/index.html`)).headers.get('content-type')).toContain('text/html')
    expect(await (await fetch(`${http}/healthz`)).json()).toMatchObject({ status: 'ok' })
    expect(((await (await fetch(`${http}/v1/openapi.json`)).json()) as { openapi: string }).openapi).toMatch(/^3/)
  })

  it('can begin at / together with those of the other systems', async () => {
    const at = { prefix: '/' }
    const gateway = await open({ compat: { couchdb: at, pere: at, rrr: at } })
    const { http } = gateway.urls
    await fetch(`${http}/v1/publish?topic=notifications`, { method: 'POST', body: 'hello' })
    expect(messages(await read(gateway, '/notifications/_changes?include_docs=true'))).toEqual(['hello'])
    expect((await fetch(`${http}/push/notifications`, { method: 'POST', body: 'pere' })).status).toBe(204)
    expect((await fetch(`${http}/no/such/page.html`)).status).toBe(404)
    expect((await read(gateway, '/notifications/_changes')).results).toHaveLength(2)
  })

  it('go on with the same numbers after a restart', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-couchdb-'))
    onTestFinished(() => rm(data, { recursive: true }))
    const first = await open({ data })
    for (const text of ['1', '2']) {
      await fetch(`${first.urls.http}/v1/publish?topic=notifications`, { method: 'POST', body: text })
    }
    const before = await read(first, '/couchdb/notifications/_changes?include_docs=true')
    await first.close()
    const second = await open({ data })
    expect((await read(second, '/couchdb/notifications/_changes?include_docs=true')).results).toEqual(before.results)
    await fetch(`${second.urls.http}/v1/publish?topic=notifications`, { method: 'POST', body: '3' })
    const since = before.results[1]?.seq
    expect(messages(await read(second, `/couchdb/notifications/_changes?include_docs=true&since=${since}`))).toEqual([
      '3',
    ])
  })

  it('are for those who may subscribe, and as a script for those who are anonymous', async () => {
    const people = await People.start()
    onTestFinished(() => people.stop())
    const rules = [
      { to: 'anonymous' as const, subscribe: ['public/#'] },
      { to: 'authenticated' as const, subscribe: ['own/#'], publish: ['own/#', 'public/#'] },
    ]
    const access = { ...people.access, webhook: undefined, clientCertificates: undefined, rules }
    const gateway = await open({ access, push: { jsonp: true } })
    const { headers = {} } = bearer(await people.token())
    const asked = async (path: string, init: RequestInit = {}) => {
      const answer = await fetch(`${gateway.urls.http}/couchdb/${path}`, init)
      return [answer.status, answer.status === 200 || ((await answer.json()) as { error: string }).error]
    }
    for (const path of ['', '/_changes']) {
      expect(await asked(`public${path}`)).toEqual([200, true])
      expect(await asked(`own${path}`)).toEqual([403, 'forbidden'])
      expect(await asked(`own${path}`, { headers })).toEqual([200, true])
      expect(await asked(`own${path}?callback=C`, { headers })).toEqual([403, 'forbidden'])
      expect(await asked(`public${path}?callback=C`, { headers })).toEqual([200, true])
      expect(await asked(`own${path}`, { headers: basic('alice:wrong').headers ?? {} })).toEqual([401, 'unauthorized'])
    }
  })

  it('can be off', async () => {
    const gateway = await open({ compat: { couchdb: 'off' } })
    expect((await fetch(`${gateway.urls.http}/couchdb/notifications`)).status).toBe(404)
  })

  it('are answered before the gateway is gone', async () => {
    const gateway = await open()
    const answer = read(gateway, '/couchdb/notifications/_changes?feed=longpoll&since=now')
    await eventually(async () => {
      const presence = await (await fetch(`${gateway.urls.http}/v1/presence?topic=notifications`)).text()
      return presence.includes('couchdb-')
    })
    await gateway.close()
    expect(await answer).toMatchObject({ results: [] })
  })
})
