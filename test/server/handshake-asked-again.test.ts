import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { handshake } from '../helpers/handshake.js'
import { basic, bearer } from '../helpers/identities.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { recordingLog } from './rig.js'

let people: People
let gateway: TestGateway

async function start(config: ConfigInput, log = recordingLog().log): Promise<TestGateway> {
  const started = await startTestGateway({ https: { port: 'off' }, mqtt: { port: 'off' }, ...config }, log)
  onTestFinished(() => started.close())
  return started
}

/** As a page asks: with the header that browsers add to requests of a page to its own origin, and without `Origin`. */
const ask = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${gateway.urls.http}${path}`, { headers: { 'sec-fetch-site': 'same-origin', ...headers } })

describeWith('openssl', 'a plain request at the path of a WebSocket', () => {
  beforeAll(async () => {
    people = await People.start()
    gateway = await startTestGateway({
      access: {
        ...people.access,
        webhook: undefined,
        rules: [{ to: 'authenticated', subscribe: ['own/#'], publish: ['own/#'] }],
      },
      tunnels: [
        { path: '/mqtt', requireIdentity: true, requireOrigin: true },
        { path: '/elsewhere', origins: ['https://app.example'] },
      ],
    })
  })
  afterAll(async () => {
    await gateway.close()
    await people.stop()
  })

  it.each([
    ['/mqtt', {}, 401, 'Authentication required.'],
    ['/mqtt', basic('alice:wrong').headers, 401, 'The credentials are not accepted'],
    ['/mqtt', basic('alice:right').headers, 426, 'This is a WebSocket endpoint'],
    ['/elsewhere', {}, 403, 'Pages of this origin may not connect'],
    ['/v1/socket', {}, 401, 'Authentication required'],
    ['/v1/socket?topic=news', basic('alice:right').headers, 403, 'This topic is not open to you: news'],
    ['/v1/socket?topic=%23/a', basic('alice:right').headers, 400, 'topic'],
    ['/v1/socket?topic=own/a', basic('alice:right').headers, 426, 'This is a WebSocket endpoint'],
  ] as const)('%s %j is answered with what a handshake would get: %d', async (path, headers, status, sentence) => {
    const answer = await ask(path, headers)
    expect(await answer.text()).toContain(sentence)
    expect(answer.status).toBe(status)
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(answer.headers.has('www-authenticate')).toBe(status === 401)
    const [target = '', query = ''] = path.split('?')
    const url = `${gateway.urls.http.replace('http', 'ws')}${target}`
    const upgrade = await handshake(url, {
      query: query && `?${query}`,
      headers: { Origin: gateway.urls.http, ...headers },
      ...(target === '/v1/socket' && { protocol: 'mqway' }),
    })
    expect(upgrade.status).toBe(status === 426 ? 101 : status)
  })

  it('does not take a request for that of another page because a browser sent no Origin with it', async () => {
    const answer = await fetch(`${gateway.urls.http}/mqtt`, { headers: bearer(await people.token()).headers ?? {} })
    expect(answer.status).toBe(426)
  })
})

const elsewhere = { broker: 'mqtt://127.0.0.1:9' } as const

describe('a gateway that pushes nothing because it stands before another broker', () => {
  it('says so once at its start, and not where push is off', async () => {
    const [before, off, embedded] = [recordingLog(), recordingLog(), recordingLog()]
    await start(elsewhere, before.log)
    await start({ ...elsewhere, push: 'off' }, off.log)
    await start({}, embedded.log)
    const said = [before, off, embedded].map(({ lines }) => lines.filter(({ msg }) => /push\.topics/.test(msg)).length)
    expect(said).toEqual([1, 0, 0])
  })

  it.each(['/couchdb/notifications', '/rrr/?handle=1', '/pere/feed', '/v1/socket', '/v1/events?topic=a'])(
    'says so at %s',
    async path => {
      const started = await start(elsewhere)
      const answer = await fetch(`${started.urls.http}${path}`)
      expect([answer.status, await answer.text()]).toEqual([404, expect.stringContaining('push.topics')])
      expect(await (await fetch(`${started.urls.http}/other`)).text()).not.toContain('push')
    },
  )
})
