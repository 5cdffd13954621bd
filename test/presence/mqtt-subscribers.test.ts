import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../src/broker/embedded/embedded.js'
import { MqttSubscribers } from '../../src/presence/mqtt-subscribers.js'
import { PresenceRegistry } from '../../src/presence/presence-registry.js'
import { limits } from '../broker/embedded/limits.js'
import { connect } from '../broker/embedded/mqtt-session.js'
import { eventually } from '../helpers/wait.js'

const log = createLog({ level: 'silent', format: 'json' })

describe('the clients of the embedded broker', () => {
  let directory: string
  let broker: EmbeddedBroker
  let presence: PresenceRegistry
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    const listeners = new MqttSubscribers()
    broker = await createEmbedded({ ...limits, data: directory }, log, { subscriptions: listeners })
    presence = new PresenceRegistry({ grace: 0 })
    listeners.attach(presence)
  })
  afterEach(async () => {
    await broker.close()
    presence.close()
    await rm(directory, { recursive: true })
  })
  const at = (topic: string) =>
    presence.at(topic, 10).listeners.map(({ device, transport, topics }) => `${device} ${transport} ${topics}`)

  it('are present with what they subscribe to, until their connection ends', async () => {
    const client = await connect(broker, { clientId: 'a' })
    expect(presence.size).toBe(0)
    await client.subscribe('news/#', 1)
    await client.subscribe('other', 0)
    expect(at('news/eu')).toEqual(['a mqtt news/#'])
    await client.client.unsubscribeAsync('news/#')
    expect([at('news/eu'), at('other')]).toEqual([[], ['a mqtt other']])
    await client.end()
    await eventually(() => presence.size === 0)
  })

  it('are present again with what their session has', async () => {
    const first = await connect(broker, { clientId: 'a', clean: false })
    await first.subscribe('news/#', 1)
    await first.end()
    await eventually(() => presence.size === 0)
    const second = await connect(broker, { clientId: 'a', clean: false })
    await eventually(() => presence.size === 1)
    expect(at('news/eu')).toEqual(['a mqtt news/#'])
    await second.end()
    await eventually(() => presence.size === 0)
  })

  it('are one listener where a connection takes the place of another', async () => {
    const first = await connect(broker, { clientId: 'a' })
    await first.subscribe('x', 0)
    const second = await connect(broker, { clientId: 'a' })
    await second.subscribe('x', 0)
    await eventually(() => presence.at('x', 1).listeners[0]?.connections === 1)
    expect(presence.at('x', 1).count).toBe(1)
    await second.end()
    await eventually(() => presence.size === 0)
    await first.end()
  })

  it('are known by their user, where there is one, and else by the first part of their client id', () => {
    const listeners = new MqttSubscribers()
    listeners.attach(presence)
    const phone = { clientId: 'phone', user: 'alice' }
    const laptop = { clientId: 'laptop', user: 'alice' }
    listeners.subscribed(phone, ['x'])
    listeners.subscribed(laptop, ['x', 'y'])
    listeners.subscribed({ clientId: 'n'.repeat(1000), user: undefined }, ['x'])
    expect(presence.at('x', 10).listeners).toMatchObject([
      { device: 'alice', user: 'alice', connections: 2 },
      { device: 'n'.repeat(255), user: undefined, connections: 1 },
    ])
    listeners.left(phone)
    listeners.left(phone)
    expect(at('y')).toEqual(['alice mqtt y'])
  })
})
