import { setMaxListeners } from 'node:events'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import type { Message } from '../../src/mqtt/message.js'
import { decodeMessageProperties, encodeProperties } from '../../src/mqtt/properties.js'
import { Requests } from '../../src/sources/requests.js'
import { ResponseInbox } from '../../src/sources/response-inbox.js'
import { mayMatchResponses } from '../../src/topics/response-topic.js'
import { bounds, log, message } from './rig.js'

/** A source whose messages a test answers. */
class TestSource {
  readonly published: Message[] = []
  receive: () => Promise<void> = async () => {}
  onPublish: (message: Message) => void = () => {}

  receiveResponses(): Promise<void> {
    return this.receive()
  }

  async publish(published: Message): Promise<undefined> {
    this.published.push(published)
    this.onPublish(published)
  }
}

let journal: MemoryJournal
let source: TestSource
let inbox: ResponseInbox
let requests: Requests
const outcomes: string[] = []
const never = new AbortController().signal

beforeEach(() => {
  outcomes.length = 0
  journal = new MemoryJournal({ bounds, log })
  source = new TestSource()
  inbox = new ResponseInbox()
  requests = new Requests({ source, inbox, journal, onEnded: outcome => outcomes.push(outcome) })
})
afterEach(() => journal.close())

const send = (
  options: { replyTopic?: string; timeout?: number; signal?: AbortSignal; by?: string } = {},
  text = 'ask',
) => requests.send(message('t', text), { by: 'me', timeout: 5000, signal: never, ...options })

/** The response topic and the correlation data of a request. */
function askedOf({ properties }: Message) {
  const { responseTopic = '', correlationData } = decodeMessageProperties(properties ?? Buffer.alloc(0))
  return { responseTopic, correlationData }
}

function responseTo(request: Message, text: string, correlationData = askedOf(request).correlationData): Message {
  const properties = correlationData ? { properties: encodeProperties({ correlationData }) } : {}
  return message(askedOf(request).responseTopic, text, properties)
}

const textOf = async (response: Promise<Message>): Promise<string> => (await response).payload.toString()
const reasonOf = (response: Promise<Message>): Promise<string> =>
  response.then(
    () => 'none',
    error => (error instanceof GatewayError ? error.reason : String(error)),
  )

describe('a request', () => {
  it('has a response topic and correlation data of its own, and expires with its timeout', async () => {
    source.onPublish = request => inbox.deliver(responseTo(request, 'answer'))
    const before = Date.now()
    expect(await Promise.all([textOf(send()), textOf(send())])).toEqual(['answer', 'answer'])
    const [one, other] = source.published.map(askedOf)
    expect(one?.responseTopic).toMatch(/^\$mqway\/response\/[\w-]{22}\/[\w-]{22}$/)
    expect(one?.responseTopic).not.toBe(other?.responseTopic)
    expect(one?.correlationData).toHaveLength(16)
    expect(one?.correlationData).not.toEqual(other?.correlationData)
    expect(source.published[0]?.expires).toBeGreaterThanOrEqual(before + 5000)
    expect(outcomes).toEqual(['answered', 'answered'])
    expect(requests.pending).toBe(0)
  })

  it('keeps its own properties', async () => {
    const properties = encodeProperties({ contentType: 'a/b', userProperties: [['a', 'b']] })
    source.onPublish = request => inbox.deliver(responseTo(request, 'answer'))
    await requests.send(message('t', '', { properties }), { by: 'me', timeout: 5000, signal: never })
    expect(decodeMessageProperties(source.published[0]?.properties ?? Buffer.alloc(0))).toMatchObject({
      contentType: 'a/b',
      userProperties: [['a', 'b']],
      responseTopic: expect.any(String),
    })
  })

  it('takes a response without correlation data, and none with those of another', async () => {
    source.onPublish = request => {
      inbox.deliver(responseTo(request, 'wrong', Buffer.from('other')))
      inbox.deliver(message(askedOf(request).responseTopic, 'right'))
      inbox.deliver(responseTo(request, 'late'))
    }
    expect(await textOf(send())).toBe('right')
  })

  it('ends after its timeout, when its client leaves, and when the gateway shuts down', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    try {
      const left = new AbortController()
      const all = [send({ timeout: 100 }), send({ signal: left.signal }), send()].map(reasonOf)
      vi.advanceTimersByTime(100)
      left.abort()
      expect(await Promise.all(all.slice(0, 2))).toEqual(['response-timeout', 'client-closed'])
      expect(requests.pending).toBe(1)
      requests.close()
      expect(await all[2]).toBe('shutting-down')
      expect(await reasonOf(send())).toBe('shutting-down')
      expect(requests.pending).toBe(0)
      expect(outcomes).toEqual(['timeout', 'abandoned', 'refused', 'refused'])
    } finally {
      vi.useRealTimers()
    }
  })

  it('is not published where its client left before responses arrive', async () => {
    const left = new AbortController()
    source.receive = async () => left.abort()
    expect(await reasonOf(send({ signal: left.signal }))).toBe('client-closed')
    expect(source.published).toEqual([])
  })

  it('fails as its publish does', async () => {
    source.onPublish = () => {
      throw new GatewayError('broker-away')
    }
    expect(await reasonOf(send())).toBe('broker-away')
    source.receive = () => Promise.reject(new GatewayError('requests-unsupported'))
    expect(await reasonOf(send())).toBe('requests-unsupported')
  })

  it('is one of at most a thousand, of which one account has half', async () => {
    const left = new AbortController()
    const { signal } = left
    setMaxListeners(0, signal)
    const all = Array.from({ length: 501 }, () => reasonOf(send({ signal })))
    expect(await all[500]).toBe('requests-too-many')
    const others = Array.from({ length: 300 }, (_, index) => reasonOf(send({ signal, by: `other ${index % 3}` })))
    expect(requests.pending).toBe(800)
    expect(await reasonOf(send({ signal, by: 'me' }))).toBe('requests-too-many')
    left.abort()
    expect(new Set(await Promise.all([...all.slice(0, 500), ...others]))).toEqual(new Set(['client-closed']))
    expect(requests.pending).toBe(0)
  })

  it('is one of at most 16 MiB', async () => {
    const left = new AbortController()
    const { signal } = left
    const large = 'x'.repeat(6 * 1024 ** 2)
    const [first, second] = [reasonOf(send({ signal }, large)), reasonOf(send({ signal }, large))]
    expect(await second).toBe('requests-too-many')
    left.abort()
    await first
  })
})

describe('a request with a topic for replies', () => {
  it('gets the next message there, and is the only one that waits for one', async () => {
    await journal.append(message('reply', 'earlier', { retain: true }))
    const answers = [textOf(send({ replyTopic: 'reply' }, '1')), textOf(send({ replyTopic: 'reply' }, '2'))]
    const other = textOf(send({ replyTopic: 'other' }, '3'))
    await vi.waitFor(() => expect(source.published.map(({ payload }) => String(payload))).toEqual(['1', '3']))
    await journal.append(message('reply/x', 'no'))
    await journal.append(message('reply', 'one'))
    expect(await answers[0]).toBe('one')
    await vi.waitFor(() => expect(source.published).toHaveLength(3))
    await journal.append(message('other', 'three'))
    await journal.append(message('reply', 'two'))
    expect(await Promise.all([...answers, other])).toEqual(['one', 'two', 'three'])
    expect(askedOf(source.published[0] as Message).responseTopic).toBe('reply')
  })

  it('ignores replies to others that say so', async () => {
    const answer = textOf(send({ replyTopic: 'reply' }))
    await vi.waitFor(() => expect(source.published).toHaveLength(1))
    const [request] = source.published as [Message]
    await journal.append(responseTo(request, 'wrong', Buffer.from('other')))
    await journal.append(responseTo(request, 'right'))
    expect(await answer).toBe('right')
  })

  it('leaves its turn to the next where it ends before', async () => {
    const left = new AbortController()
    const first = reasonOf(send({ replyTopic: 'reply', signal: left.signal }, '1'))
    const second = reasonOf(send({ replyTopic: 'reply', signal: left.signal }, '2'))
    const third = textOf(send({ replyTopic: 'reply' }, '3'))
    await vi.waitFor(() => expect(source.published).toHaveLength(1))
    left.abort()
    expect(await Promise.all([first, second])).toEqual(['client-closed', 'client-closed'])
    await vi.waitFor(() => expect(source.published).toHaveLength(2))
    expect(String(source.published[1]?.payload)).toBe('3')
    await journal.append(message('reply', 'three'))
    expect(await third).toBe('three')
  })
})

describe('the topics of responses', () => {
  it.each([
    ['$mqway/#', true],
    ['$mqway/response/x/y', true],
    ['$mqway/+/x/+', true],
    ['$mqway', true],
    ['$share/g/$mqway/#', true],
    ['#', false],
    ['+/response/#', false],
    ['$mqwayz/#', false],
    ['a/$mqway/#', false],
    ['$share/g/#', false],
  ])('may match %s: %s', (filter, expected) => {
    expect(mayMatchResponses(filter)).toBe(expected)
  })
})
