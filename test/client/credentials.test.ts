import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { Transport } from '../../src/client/api.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { recorded } from './rig.js'

const inSeconds = (seconds: number): number => Math.floor(Date.now() / 1000) + seconds

describeWith(['openssl'], 'somebody with credentials', () => {
  let people: People
  beforeAll(async () => {
    people = await People.start()
  })
  afterAll(() => people.stop())

  async function start(): Promise<TestGateway> {
    const rules = [{ to: 'authenticated' as const, publish: ['news/#'], subscribe: ['news/#'] }]
    const gateway = await startTestGateway({ access: { ...people.access, rules } })
    onTestFinished(() => gateway.close())
    return gateway
  }

  const ticketFrom = async (gateway: TestGateway): Promise<string> => {
    const headers = { authorization: `Bearer ${await people.token()}` }
    const answer = await fetch(`${gateway.urls.http}/v1/tickets`, { method: 'POST', headers })
    return (await answer.json()).ticket
  }

  const transports: Transport[] = ['socket', 'sse', 'poll']

  it.each(transports)('listens, publishes and acknowledges with a token over %s', async transport => {
    const gateway = await start()
    const token = await people.token({ device: 'kitchen' })
    const heard = recorded({ url: gateway.urls.http, topics: ['news/#'], transports: [transport], token })
    await heard.until(() => heard.client.cursor !== undefined)
    expect(heard.client.state).toMatchObject({ device: 'kitchen' })
    const { id } = await heard.client.publish('news/eu', 'one')
    await heard.until(() => heard.events.length === 1)
    expect(await heard.client.receipt(id ?? '', 'processed')).toMatchObject({ device: 'kitchen', status: 'processed' })
    await expect(heard.client.publish('other', 'one')).rejects.toMatchObject({ status: 403, reason: 'topic-refused' })
  })

  it.each(transports)('does the same with tickets, a new one for each connection, over %s', async transport => {
    const gateway = await start()
    const ticket = (): Promise<string> => ticketFrom(gateway)
    const heard = recorded({ url: gateway.urls.http, topics: ['news/#'], transports: [transport], ticket })
    await heard.until(() => heard.client.cursor !== undefined)
    const { id } = await heard.client.publish('news/eu', 'one')
    await heard.until(() => heard.events.length === 1)
    expect(await heard.client.receipt(id ?? '', 'received')).toMatchObject({ device: 'alice' })
  })

  it.each<Transport>(['socket', 'sse'])(
    'goes on with a fresh token when one expires, and loses nothing, over %s',
    async transport => {
      const gateway = await start()
      let asked = 0
      const token = (): Promise<string> => people.token({ exp: inSeconds(asked++ === 0 ? 2 : 60) })
      const heard = recorded({ url: gateway.urls.http, topics: ['news/#'], transports: [transport], token })
      await heard.until(() => heard.client.cursor !== undefined)
      const publisher = recorded({ url: gateway.urls.http, token: await people.token() })
      let published = 0
      const publish = () => publisher.client.publish('news/eu', String(++published))
      while (asked < 2 || heard.client.state.phase !== 'open') await publish()
      await publish()
      await heard.until(() => heard.events.length >= published)
      expect(heard.payloads).toEqual(Array.from({ length: published }, (_, index) => String(index + 1)))
      expect(heard.states).toContainEqual(expect.objectContaining({ phase: 'waiting', reason: 'identity-expired' }))
      expect(heard.client.state.phase).toBe('open')
      expect(asked).toBe(2)
    },
  )

  it('is told that a token is not accepted, after one more try', async () => {
    const gateway = await start()
    let asked = 0
    const token = (): Promise<string> => {
      asked++
      return people.token({ exp: inSeconds(-10) })
    }
    const heard = recorded({ url: gateway.urls.http, topics: ['news/#'], transports: ['sse'], token })
    await heard.until(() => heard.client.state.phase === 'closed')
    expect(heard.client.state).toMatchObject({ error: { status: 401, reason: 'identity-refused' } })
    expect(asked).toBe(2)
  })

  it('is told which topic is not theirs, though sockets do not say why they are refused', async () => {
    const gateway = await start()
    const token = await people.token()
    const heard = recorded({ url: gateway.urls.http, topics: ['other/#'], token })
    await heard.until(() => heard.client.state.phase === 'closed')
    expect(heard.client.state).toMatchObject({ error: { status: 403, reason: 'topic-refused' } })
  })

  it('waits where tickets cannot be had, and does not blame the transport', async () => {
    const gateway = await start()
    let down = true
    const ticket = async (): Promise<string> => {
      if (down) throw new Error('the back end is down')
      return ticketFrom(gateway)
    }
    const heard = recorded({ url: gateway.urls.http, topics: ['news/#'], ticket })
    await heard.until(() => heard.client.state.phase === 'waiting')
    expect(heard.client.state).toMatchObject({ reason: 'no-credentials' })
    down = false
    await heard.open('socket')
  })
})
