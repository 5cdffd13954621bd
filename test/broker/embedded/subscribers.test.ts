import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { type Broker, internalPeer } from '../../../src/broker/broker.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import type { SubscribingClient, SubscriptionWatcher } from '../../../src/broker/embedded/subscribers.js'
import { eventually } from '../../helpers/wait.js'
import { Credentials, startGuarded } from './access-rig.js'
import { limits } from './limits.js'
import { connect, somePeer } from './mqtt-session.js'

const log = createLog({ level: 'silent', format: 'json' })

/** Notes what it is told, and checks that each client comes, and goes once. */
class Notes implements SubscriptionWatcher {
  readonly lines: string[] = []
  readonly clients = new Set<SubscribingClient>()
  readonly gone = new Set<SubscribingClient>()

  subscribed(client: SubscribingClient, filters: readonly string[]): void {
    if (this.gone.has(client)) throw new Error('subscribed after it left')
    this.clients.add(client)
    this.lines.push(`${client.clientId} + ${filters.join(' ')}`)
  }

  unsubscribed(client: SubscribingClient, filters: readonly string[]): void {
    if (!this.clients.has(client) || this.gone.has(client)) throw new Error('unsubscribed while it was not there')
    this.lines.push(`${client.clientId} - ${filters.join(' ')}`)
  }

  left(client: SubscribingClient): void {
    if (!this.clients.has(client) || this.gone.has(client)) throw new Error('left while it was not there')
    this.gone.add(client)
    this.lines.push(`${client.clientId} left`)
  }
}

describe('who subscribes to what', () => {
  let directory: string
  let notes: Notes
  let broker: EmbeddedBroker
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    notes = new Notes()
    broker = await createEmbedded({ ...limits, data: directory }, log, { subscriptions: notes })
  })
  afterEach(async () => {
    await broker.close()
    await rm(directory, { recursive: true })
  })

  it.each([true, false])('is told from the first filter to the end, clean=%s', async clean => {
    const client = await connect(broker, { clientId: 'a', clean })
    expect(notes.lines).toEqual([])
    await client.subscribe('news/#', 1)
    await client.subscribe('other', 0)
    await client.client.unsubscribeAsync('news/#')
    await client.end()
    await eventually(() => notes.gone.size === 1)
    expect(notes.lines).toEqual(['a + news/#', 'a + other', 'a - news/#', 'a left'])
    expect([...notes.clients]).toEqual([{ clientId: 'a', user: undefined, address: somePeer.address }])
  })

  it('is not told of a client that subscribes to nothing', async () => {
    const client = await connect(broker, { clientId: 'a' })
    await client.end()
    const other = await connect(broker, { clientId: 'b' })
    await other.subscribe('x', 0)
    expect(notes.lines).toEqual(['b + x'])
    await other.end()
  })

  it('has what a session brings back', async () => {
    const first = await connect(broker, { clientId: 'a', clean: false })
    await first.subscribe('news/#', 1)
    await first.end()
    await eventually(() => notes.gone.size === 1)
    const second = await connect(broker, { clientId: 'a', clean: false })
    await eventually(() => notes.lines.length === 3)
    expect(notes.lines).toEqual(['a + news/#', 'a left', 'a + news/#'])
    await second.end()
  })

  it('is told of one that another takes the place of, and of the other one', async () => {
    const first = await connect(broker, { clientId: 'a' })
    await first.subscribe('x', 0)
    const second = await connect(broker, { clientId: 'a' })
    await second.subscribe('y', 0)
    expect(notes.lines).toEqual(['a + x', 'a left', 'a + y'])
    await second.end()
  })

  it('leaves out filters that were not granted', async () => {
    const client = await connect(broker, { clientId: 'a' })
    await client.client.subscribeAsync(['fine', '$mqway/none', 'good']).catch(() => {})
    expect(notes.lines).toEqual(['a + fine good'])
    await client.end()
  })

  it('leaves the program itself out, which is no client in the figures either', async () => {
    const own = await connect({ ...broker, open: () => broker.open(internalPeer) } as Broker, { clientId: 'own' })
    await own.subscribe('#', 1)
    expect(notes.lines).toEqual([])
    expect(broker.figures().connected).toBe(0)
    const client = await connect(broker)
    expect(broker.figures().connected).toBe(1)
    await own.end()
    await client.end()
    await eventually(() => broker.figures().connected === 0)
  })

  it('names the user', async () => {
    const credentials = new Credentials()
    const guarded = await startGuarded({
      access: { ...credentials.access, rules: [{ to: 'authenticated', subscribe: ['mine'] }] },
      hooks: { subscriptions: notes },
    })
    const client = await connect(guarded, { clientId: 'a', username: 'alice', password: 'right' })
    await client.client.subscribeAsync(['mine', 'theirs']).catch(() => {})
    expect(notes.lines).toEqual(['a + mine'])
    expect([...notes.clients]).toMatchObject([{ user: 'alice' }])
    await client.end()
    await guarded.close()
    credentials.remove()
  })
})
