import { beforeEach, describe, expect, it } from 'vitest'
import type { ConnectedClient } from '../../src/base/connected-clients.js'
import { createLog } from '../../src/base/log.js'
import type { Message } from '../../src/mqtt/message.js'
import { ClientMessages, type ClientMessagesOptions, clientTopic } from '../../src/presence/client-messages.js'
import type { Publisher } from '../../src/sources/publisher.js'
import { isTopicName } from '../../src/topics/topic-syntax.js'
import { eventually } from '../helpers/wait.js'

const log = createLog({ level: 'silent', format: 'json' })
const bounds = { topicLevels: 32, topicLength: 1024 }

class TestPublisher implements Publisher {
  connected = true
  readonly messages: Message[] = []
  async publish(message: Message): Promise<undefined> {
    this.messages.push(message)
  }
}

const client = (more: Partial<ConnectedClient> = {}): ConnectedClient => ({
  ...{ clientId: 'a', connection: 'k2', user: 'alice', username: 'a token', address: '192.0.2.7', protocolVersion: 5 },
  ...{ transport: 'websocket', path: '/mqtt', broker: 'mqtt://secret:1883', since: Date.now() - 5000 },
  ...{ traffic: { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0 }, bufferedBytes: 0, session: undefined },
  end: () => {},
  ...more,
})

describe('topics of clients', () => {
  it.each([
    ['thermostat-7', 'clients/thermostat-7/connected'],
    ['a/b', 'clients/a%2Fb/connected'],
    ['+', 'clients/%2B/connected'],
    ['#', 'clients/%23/connected'],
    ['100%', 'clients/100%25/connected'],
    ['$SYS', 'clients/$SYS/connected'],
    ['', 'clients//connected'],
    ['\u0000\u001f\u007f\u0085', 'clients/%00%1F%7F%C2%85/connected'],
    ['\ufffe\u{1ffff}', 'clients/%EF%BF%BE%F0%9F%BF%BF/connected'],
    ['Zürich 😀', 'clients/Zürich 😀/connected'],
    [Buffer.from([0xff, 0x61]).toString(), 'clients/\ufffda/connected'],
  ])('%j is one level', (id, topic) => {
    expect(clientTopic(id, 'connected')).toBe(topic)
    expect(isTopicName(topic, bounds)).toBe(true)
    expect(topic.split('/')).toHaveLength(3)
    expect(decodeURIComponent(topic.slice('clients/'.length, -'/connected'.length))).toBe(id)
  })

  it('differ where the ids do', () => {
    const ids = ['a/b', 'a%2Fb', 'a%252Fb', '+', '%2B', '#', '%', '%25']
    expect(new Set(ids.map(id => clientTopic(id, 'connected'))).size).toBe(ids.length)
  })
})

describe('messages of clients', () => {
  let publisher: TestPublisher
  let messages: ClientMessages
  const start = (options: Partial<ClientMessagesOptions> = {}): void => {
    publisher = new TestPublisher()
    const accountOf = (user: string | undefined, address: string): string => user ?? address
    messages = new ClientMessages({ publisher, bounds, log, accountOf, ...options })
  }
  beforeEach(() => start())
  const bodies = () => publisher.messages.map(({ payload }) => JSON.parse(payload.toString()))

  it('say who connects and disconnects, but not the addresses of client and broker, and not the user name of CONNECT', async () => {
    messages.connected(client())
    messages.disconnected(client(), 'disconnected-by-admin')
    await eventually(() => publisher.messages.length === 2)
    expect(publisher.messages).toMatchObject([
      { topic: 'clients/a/connected', qos: 0, retain: false },
      { topic: 'clients/a/disconnected', qos: 0, retain: false },
    ])
    const common = { clientId: 'a', connection: 'k2', user: 'alice', protocolVersion: 5, transport: 'websocket' }
    const time = expect.stringMatching(/Z$/)
    expect(bodies()).toEqual([
      { event: 'connected', ...common, path: '/mqtt', time },
      { event: 'disconnected', ...common, path: '/mqtt', time, reason: 'disconnected-by-admin', seconds: 5 },
    ])
  })

  it('are not sent when the gateway ends', async () => {
    messages.disconnected(client(), 'shutting-down')
    messages.connected(client({ clientId: 'b' }))
    await eventually(() => publisher.messages.length > 0)
    expect(publisher.messages.map(({ topic }) => topic)).toEqual(['clients/b/connected'])
  })

  it('are limited by user or address, and counted', async () => {
    const left = new Map([['alice', 1]])
    start({
      mayPublish: account => {
        const rest = left.get(account) ?? 2
        left.set(account, rest - 1)
        return rest > 0
      },
    })
    for (let index = 0; index < 5; index++) {
      messages.connected(client({ clientId: `alice ${index}` }))
      messages.connected(client({ clientId: `nobody ${index}`, user: undefined }))
    }
    await eventually(() => publisher.messages.length === 3)
    expect(messages.counters).toMatchObject({ published: 3, dropped: 7 })
  })

  it('have no topics that are too long for the broker', async () => {
    messages.connected(client({ clientId: '/'.repeat(1000) }))
    messages.connected(client())
    await eventually(() => publisher.messages.length === 1)
    expect(messages.counters.skipped).toBe(1)
  })
})
