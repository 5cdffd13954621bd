import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Handles } from '../../src/compat/rrr/handles.js'
import type { Journal } from '../../src/journal/journal.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { MemoryState } from '../../src/storage/memory-state.js'
import { message } from '../contracts/journal.js'
import { eventually } from '../helpers/wait.js'
import { recordingLog } from '../server/rig.js'
import { rrrDefaults, startRrrRig } from './rrr-rig.js'

const json = async (answer: Promise<Response>): Promise<unknown> => (await answer).json()

describe('a request for a handle', () => {
  it('is answered with what was published before it, in order, one message each, whatever the path', async () => {
    const rig = await startRrrRig()
    await rig.publish('push/1', 'one')
    await rig.publish('push/2', 'of another')
    await rig.publish('push/1', 'two')
    const answer = await rig.ask('/rrr/?handle=1')
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')).toBe('application/json; charset=utf-8')
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(await answer.text()).toBe('{"content":"one","handle":1,"id":1}')
    expect(await json(rig.ask('/rrr/any/path?x=y&handle=1'))).toEqual({ content: 'two', handle: 1, id: 2 })
    expect(await json(rig.ask('/rrr?handle=2'))).toEqual({ content: 'of another', handle: 2, id: 3 })
  })

  it('waits for what comes, and has it at once; two messages of one turn are two answers', async () => {
    const rig = await startRrrRig()
    const { answer } = await rig.wait('/rrr/?handle=one')
    await Promise.all([rig.publish('push/one', 'now'), rig.publish('push/one', 'and this')])
    expect(await json(answer)).toMatchObject({ content: 'now', handle: 'one' })
    expect(await json(rig.ask('/rrr/?handle=one'))).toMatchObject({ content: 'and this' })
  })

  it('is answered with nothing when its time is up, and what comes then is for the next', async () => {
    const rig = await startRrrRig({ wait: 100 })
    expect(await json(rig.ask('/rrr/?handle=1'))).toEqual({ content: '', handle: 1, id: 1 })
    await rig.publish('push/1', 'later')
    expect(await json(rig.ask('/rrr/?handle=1'))).toMatchObject({ content: 'later' })
    expect(rig.hub.counters.subscribers).toBe(0)
  })

  it('makes room for a newer one at once, with nothing', async () => {
    const rig = await startRrrRig({}, { config: { limits: { connectionsPerAddress: 1 } } })
    const first = await rig.wait('/rrr/?handle=1')
    const second = await rig.wait('/rrr/?handle=1')
    expect(await json(first.answer)).toMatchObject({ content: '' })
    await rig.publish('push/1', 'for the newer one')
    expect(await json(second.answer)).toMatchObject({ content: 'for the newer one' })
  })

  it('does not chase another one with the same handle, where both ask again at once', async () => {
    const rig = await startRrrRig()
    let asked = 0
    const until = performance.now() + 1500
    const askAgain = async (): Promise<void> => {
      while (performance.now() < until) {
        asked++
        await rig.ask('/rrr/?handle=1').then(answer => answer.text())
      }
    }
    const both = Promise.all([askAgain(), askAgain()])
    await eventually(() => performance.now() >= until)
    expect(asked).toBeGreaterThanOrEqual(4)
    expect(asked).toBeLessThan(10)
    rig.rrr.close()
    await both
  })

  it('has a number for digits that are one, and a text for everything else', async () => {
    const rig = await startRrrRig({ wait: 100 })
    const handles = [
      '0',
      '42',
      '9007199254740991',
      '9007199254740993',
      '007',
      '1e3',
      '-1',
      'a"b\\c',
      '\u00e9\u{1f600}',
      '<script>',
    ]
    const answers = await Promise.all(
      handles.map(async handle => (await rig.ask(`/rrr/?handle=${encodeURIComponent(handle)}`)).text()),
    )
    expect(answers.map(answer => JSON.parse(answer).handle)).toEqual([0, 42, 9007199254740991, ...handles.slice(3)])
  })

  it.each([
    { what: 'quotes, backslashes and line breaks', payload: '"\\\r\n\t\u0000\u2028' },
    { what: 'emoji and scripts', payload: '\u{1f600}</script><!--' },
    { what: 'nothing at all', payload: '' },
    { what: 'a MiB', payload: 'x"'.repeat(512 * 1024) },
  ])('carries $what', async ({ payload }) => {
    const rig = await startRrrRig()
    await rig.publish('push/1', payload)
    expect(await json(rig.ask('/rrr/?handle=1'))).toEqual({ content: payload, handle: 1, id: 1 })
  })

  it('carries what is no text in base64, and says so', async () => {
    const rig = await startRrrRig()
    await rig.publish('push/1', Buffer.from([0xff, 0, 0x80]))
    expect(await json(rig.ask('/rrr/?handle=1'))).toEqual({ content: '/wCA', encoding: 'base64', handle: 1, id: 1 })
  })

  it('gets what its topic has said lately, and no more than there is room for, the newest', async () => {
    let time = Date.now()
    const rig = await startRrrRig({ maxQueued: 3, maxAge: 60_000, wait: 100 }, { rrr: { now: () => time } })
    for (let count = 1; count <= 5; count++) await rig.publish('push/1', String(count))
    for (const content of ['3', '4', '5', '']) expect(await json(rig.ask('/rrr/?handle=1'))).toMatchObject({ content })
    await rig.publish('push/1', 'old by then')
    await rig.publish('push/2', 'old by then')
    time += 61_000
    expect(await json(rig.ask('/rrr/?handle=1'))).toMatchObject({ content: '' })
    expect(await json(rig.ask('/rrr/?handle=2'))).toMatchObject({ content: '' })
  })

  it('that is left before its answer leaves the message for the next', async () => {
    const rig = await startRrrRig()
    const leaving = new AbortController()
    const { answer } = await rig.wait('/rrr/?handle=1', { signal: leaving.signal })
    leaving.abort()
    await expect(answer).rejects.toThrow()
    await eventually(() => rig.hub.counters.subscribers === 0)
    await rig.publish('push/1', 'still here')
    expect(await json(rig.ask('/rrr/?handle=1'))).toMatchObject({ content: 'still here' })
  })

  it('is broken off when the next one comes before it was read, and that has the message', async () => {
    const rig = await startRrrRig()
    const large = 'x'.repeat(48 * 1024 * 1024)
    await rig.publish('push/1', large)
    await rig.publish('push/1', 'the next')
    const lazy = rig.tcp()
    lazy.pause()
    lazy.write('GET /rrr/?handle=1 HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await eventually(() => rig.attendances[0]?.left === true)
    const answer = await (await rig.ask('/rrr/?handle=1')).text()
    expect(answer === `{"content":"${large}","handle":1,"id":2}`).toBe(true)
    // Cut off, as it must not come to be read as whole.
    let read = 0
    lazy.on('data', chunk => {
      read += chunk.length
    })
    lazy.resume()
    await once(lazy, 'close')
    expect(read).toBeLessThan(large.length)
    expect(await json(rig.ask('/rrr/?handle=1'))).toMatchObject({ content: 'the next' })
  })

  it('works over HTTP/2, and a stream that is broken off leaves the message there', async () => {
    const rig = await startRrrRig()
    const session = rig.http2()
    const lazy = session.request({ ':path': '/rrr/?handle=1' })
    await once(lazy, 'ready')
    await eventually(() => rig.hub.counters.subscribers === 1)
    lazy.close()
    await eventually(() => rig.hub.counters.subscribers === 0)
    await rig.publish('push/1', 'one')
    await rig.publish('push/1', 'two')
    for (const content of ['one', 'two']) {
      let text = ''
      const stream = session.request({ ':path': '/rrr/?handle=1' })
      for await (const chunk of stream.setEncoding('utf8')) text += chunk
      expect(JSON.parse(text)).toMatchObject({ content })
    }
  })

  it('goes on with what is there when the journal has let go of the rest', async () => {
    const rig = await startRrrRig({ wait: 200 }, { maxEvents: 2000, recent: { maxEvents: 10, maxBytes: 1024 } })
    expect(await json(rig.ask('/rrr/?handle=1'))).toMatchObject({ content: '' })
    await rig.publish('push/1', 'lost')
    for (let count = 0; count < 3000; count++) void rig.publish('noise', String(count))
    await rig.publish('push/1', 'kept')
    await rig.journal.trim()
    expect(await json(rig.ask('/rrr/?handle=1'))).toMatchObject({ content: 'kept' })
  })

  it('is present as the device of its name, and counts as a connection while it waits', async () => {
    const rig = await startRrrRig()
    const { answer } = await rig.wait('/rrr/?handle=kitchen')
    expect(rig.attendances).toMatchObject([
      { device: 'kitchen', transport: 'poll', topics: ['push/kitchen'], left: false },
    ])
    expect(rig.limits.open).toBe(1)
    rig.rrr.close()
    expect(await json(answer)).toMatchObject({ content: '' })
    expect(rig.attendances).toMatchObject([{ left: true }])
    expect(rig.limits.open).toBe(0)
    const refused = await rig.ask('/rrr/?handle=kitchen')
    expect(refused.status).toBe(503)
    expect(refused.headers.get('retry-after')).toBe('5')
    expect(await refused.json()).toMatchObject({ reason: 'shutting-down' })
  })

  it.each([
    { what: 'is missing', target: '/rrr/', detail: 'handle is missing' },
    { what: 'is empty', target: '/rrr/?handle=' },
    { what: 'is there twice', target: '/rrr/?handle=1&handle=2', detail: 'handle must be there once' },
    { what: 'has a level too many', target: '/rrr/?handle=a%2Fb' },
    { what: 'is a wildcard', target: '/rrr/?handle=%2B' },
    { what: 'has a line break', target: '/rrr/?handle=a%0Ab' },
    { what: 'is too long', target: `/rrr/?handle=${'x'.repeat(256)}` },
  ])('is refused where the handle $what', async ({ target, detail = 'handle must have' }) => {
    const rig = await startRrrRig()
    const answer = await rig.ask(target)
    expect(answer.status).toBe(400)
    const problem = { status: 400, reason: 'invalid-parameter', parameter: 'handle' }
    expect(await answer.json()).toMatchObject({ ...problem, detail: expect.stringContaining(detail) })
  })

  it('is refused where the topic is not open, in JSON', async () => {
    const rig = await startRrrRig({}, { config: { access: { rules: [{ to: 'anonymous', subscribe: ['push/1'] }] } } })
    const answer = await rig.ask('/rrr/?handle=2')
    expect(answer.status).toBe(403)
    expect(answer.headers.get('content-type')).toBe('application/problem+json')
    expect(await answer.json()).toMatchObject({ reason: 'topic-refused' })
  })

  it('may be a page’s of another origin, or of a file, where push.origins says so', async () => {
    const closed = await startRrrRig({ wait: 100 })
    expect((await closed.ask('/rrr/?handle=1', { headers: { origin: 'null' } })).status).toBe(403)
    const open = await startRrrRig({ wait: 100 }, { push: { origins: ['null'] } })
    const answer = await open.ask('/rrr/?handle=1', { headers: { origin: 'null' } })
    expect(answer.headers.get('access-control-allow-origin')).toBe('null')
    expect((await open.ask('/rrr/', { method: 'POST' })).status).toBe(405)
    expect((await open.ask('/rrr/x?handle=1', { method: 'HEAD' })).status).toBe(200)
  })

  it('leaves the pages alone where the prefix is /', async () => {
    const rig = await startRrrRig(
      { prefix: '/', wait: 100 },
      {
        register: app => {
          app.get('/*', async () => 'a page')
          app.get('/v1/poll', async () => 'a poll')
        },
      },
    )
    await rig.publish('push/1', 'hello')
    expect(await (await rig.ask('/')).text()).toBe('a page')
    expect(await (await rig.ask('/some/page.html?x=1')).text()).toBe('a page')
    expect(await (await rig.ask('/v1/poll?handle=1')).text()).toBe('a poll')
    expect(await json(rig.ask('/?handle=1'))).toMatchObject({ content: 'hello' })
    expect(await json(rig.ask('/index.html?handle=1'))).toMatchObject({ content: '' })
  })
})

describe('handles', () => {
  const openJournal = (): MemoryJournal => {
    const bounds = { maxEvents: 1e6, maxBytes: 2 ** 30, maxAge: 1e12, maxRetained: 0, maxRetainedBytes: 0 }
    const journal = new MemoryJournal({
      bounds: { ...bounds, maxWaiting: 1e6, maxWaitingBytes: 2 ** 30 },
      log: recordingLog().log,
    })
    onTestFinished(() => journal.close())
    return journal
  }

  it('that nobody reads for an hour leave nothing behind', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    onTestFinished(() => void vi.useRealTimers())
    const journal = openJournal()
    const handles = new Handles({ journal, state: new MemoryState(), config: { ...rrrDefaults, maxHandles: 1000 } })
    for (let count = 0; count < 1000; count++) {
      const handle = handles.take(String(count))
      void journal.append(message(handle.topic, 'nobody reads this'))
      handles.release(handle)
      if (count % 100 === 0) vi.advanceTimersByTime(1000)
    }
    expect(handles.size).toBe(1000)
    vi.advanceTimersByTime(55_000)
    expect(handles.size).toBeLessThan(1000)
    expect(handles.size).toBeGreaterThan(0)
    vi.advanceTimersByTime(3_600_000)
    expect(handles.size).toBe(0)
    expect(vi.getTimerCount()).toBe(0)
    expect(await handles.take('1').next()).toBeUndefined()
  })

  it('that nobody asks for are none, whatever is published for them', async () => {
    const journal = openJournal()
    const handles = new Handles({ journal, state: new MemoryState(), config: rrrDefaults })
    for (let count = 0; count < 100; count++) await journal.append(message(`push/${count}`, 'hello'))
    expect(handles.size).toBe(0)
  })

  it('that are in use stay, and of the others the one that was used last goes last', () => {
    const handles = new Handles({
      journal: openJournal(),
      state: new MemoryState(),
      config: { ...rrrDefaults, maxHandles: 2 },
    })
    onTestFinished(() => handles.close())
    const one = handles.take('one')
    const two = handles.take('two')
    expect(() => handles.take('three')).toThrow('All connections are taken')
    handles.release(one)
    expect(handles.take('three').name).toBe('three')
    expect(handles.take('two')).toBe(two)
  })

  it('that one address asks for are forgotten before those of others, when there are too many', () => {
    const handles = new Handles({
      journal: openJournal(),
      state: new MemoryState(),
      config: { ...rrrDefaults, maxHandles: 10 },
    })
    onTestFinished(() => handles.close())
    const one = handles.take('one', 'address 192.0.2.1')
    handles.release(one)
    for (let count = 0; count < 100; count++) handles.release(handles.take(`other-${count}`, 'address 192.0.2.2'))
    expect(handles.size).toBe(10)
    expect(handles.take('one', 'address 192.0.2.1')).toBe(one)
  })

  it('begin where all is younger than the age: found with few reads, and not for each', async () => {
    let time = 1_000_000
    const journal = openJournal()
    let reads = 0
    const counted: Journal = {
      epoch: journal.epoch,
      failure: undefined,
      get head() {
        return 100_000
      },
      get first() {
        return 1
      },
      size: 100_000,
      isShared: false,
      lost: () => undefined,
      append: m => journal.append(m),
      watch: listener => journal.watch(listener),
      read: async ({ after, through }) => {
        reads++
        if (through - after > 1) return { events: [], after, position: through }
        const event = { ...message('x', ''), id: '', sequence: through, time: through * 10, retained: false }
        return { events: [event], after, position: through }
      },
      latest: async () => 0,
      retained: journal.retained,
      trim: async () => {},
      close: async () => {},
    }
    const handles = new Handles({
      journal: counted,
      state: new MemoryState(),
      config: { ...rrrDefaults, maxAge: 1000 },
      now: () => time,
    })
    onTestFinished(() => handles.close())
    for (let count = 0; count < 5; count++) {
      const handle = handles.take(String(count))
      await handle.next()
      handles.release(handle)
    }
    // 17 halves, and each looks through what is young in one go.
    expect(reads).toBeLessThanOrEqual(17 + 5)
    time += 500
    await handles.take('later').next()
    expect(reads).toBeLessThanOrEqual(17 + 5 + 17 + 1)
  })

  /** A journal whose reads are counted, with handles of it. */
  const counting = (config: Partial<typeof rrrDefaults>) => {
    const journal = openJournal()
    const read = vi.spyOn(journal, 'read')
    const handles = new Handles({ journal, state: new MemoryState(), config: { ...rrrDefaults, ...config } })
    onTestFinished(() => handles.close())
    return { journal, read, handles }
  }

  it('that come all at once look through what is young together, and each finds its own', async () => {
    const { journal, read, handles } = counting({ maxHandles: 1000 })
    for (let count = 0; count < 3000; count++)
      await journal.append(message(`push/${count % 1000}`, String(Math.floor(count / 1000))))
    const all = Array.from({ length: 1000 }, (_, count) => handles.take(String(count)))
    const found = await Promise.all(all.map(handle => handle.next()))
    expect(found.map(event => event?.topic)).toEqual(all.map(({ topic }) => topic))
    expect(new Set(found.map(event => event?.payload.toString()))).toEqual(new Set(['0']))
    // Each has read its own message then; beside that, once through all.
    expect(read.mock.calls.length - all.length).toBeLessThan(100)
  })

  it('that are asked for again at once read nothing, as the hub has what comes', async () => {
    const { journal, read, handles } = counting({})
    await journal.append(message('other', ''))
    const handle = handles.take('1')
    await handle.next()
    handles.release(handle)
    const before = read.mock.calls.length
    for (let count = 0; count < 100; count++) await journal.append(message('push/1', String(count)))
    expect(await handles.take('1').next()).toBeUndefined()
    expect(read.mock.calls.length).toBe(before)
    // One more, and the oldest has to go.
    await journal.append(message('push/1', '100'))
    expect((await handle.next())?.payload.toString()).toBe('1')
  })

  it('have each message once, in order, also where the journal could not be read half-way', async () => {
    const { journal, read, handles } = counting({ maxQueued: 700 })
    for (let count = 0; count < 600; count++) await journal.append(message('push/1', String(count)))
    const handle = handles.take('1')
    let portions = 0
    read.mockImplementation(query => {
      if (query.limit > 1 && ++portions === 2) return Promise.reject(new Error('no'))
      return MemoryJournal.prototype.read.call(journal, query)
    })
    await expect(handle.next()).rejects.toThrow('no')
    const texts: string[] = []
    for (;;) {
      const event = await handle.next(false)
      if (!event) break
      texts.push(event.payload.toString())
      const answer = new PassThrough()
      handle.startSending('', event.sequence, answer)
      await once(answer.end(), 'finish')
    }
    expect(texts).toEqual(Array.from({ length: 600 }, (_, count) => String(count)))
  })
})
