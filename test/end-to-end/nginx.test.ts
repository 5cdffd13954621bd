import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { pushTransports } from '../helpers/event-clients.js'
import { startTestGateway } from '../helpers/gateway.js'
import { handshake, mqttThrough } from '../helpers/handshake.js'
import { get } from '../helpers/lighttpd-pair.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { behindNginx, startNginx } from '../helpers/nginx.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const address = 'http://127.0.0.1:8080'
const page = { host: 'www.example.org', origin: 'http://www.example.org' }
const asPage = { headers: page }

/** nginx with the lines of docs/operations.md in front of a gateway with its options, or with less of either. */
async function startBehindNginx(lines = behindNginx.nginx, config: ConfigInput = behindNginx.mqway) {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  const url = await startNginx(lines.replace(address, gateway.urls.http))
  return { gateway, url, ws: url.replace('http', 'ws') }
}

const publish = (url: string, body: string): Promise<Response> =>
  fetch(`${url}/v1/publish?topic=news/europe`, { method: 'POST', body })

describeWith('nginx', 'behind nginx with the lines of docs/operations.md', () => {
  it('carries MQTT of a page over /mqtt', async () => {
    const { ws } = await startBehindNginx()
    const client = await mqttThrough(`${ws}/mqtt`, asPage)
    const arrived = nextMessage(client)
    await client.subscribeAsync('news/#', { qos: 1 })
    await client.publishAsync('news/europe', 'hello', { qos: 1 })
    expect(String((await arrived).payload)).toBe('hello')
  })

  it.each(['an event stream', 'long-polls', 'a socket'])('brings each event at once over %s', async name => {
    const { gateway, url } = await startBehindNginx(behindNginx.nginx, { ...behindNginx.mqway, hosts: ['127.0.0.1'] })
    const client = await pushTransports[name]?.({ http: url, https: '' }, { topics: ['news/#'] })
    if (!client) throw new Error(`there is no ${name}`)
    // The next one is published after the one before it has come: nothing waits for a buffer to be full.
    for (const payload of ['one', 'two', 'three']) {
      expect((await publish(gateway.urls.http, payload)).status).toBe(201)
      await eventually(() => client.events.at(-1)?.payload.toString() === payload)
    }
    expect(client.events).toHaveLength(3)
    await client.close()
  })

  it('serves pages and takes what is published, up to the size of mqway’s own limit', async () => {
    const { url } = await startBehindNginx(behindNginx.nginx, { ...behindNginx.mqway, hosts: ['127.0.0.1'] })
    expect(await get(url, '/', { headers: { host: '127.0.0.1' } })).toMatch(/^200 <!doctype html>/i)
    expect((await publish(url, 'x'.repeat(2 ** 20))).status).toBe(201)
    expect((await publish(url, 'x'.repeat(2 ** 20 + 1))).status).toBe(413)
  })

  /** Each line that is needed, with the statuses that docs/operations.md names for a page's handshake without it. */
  const needed = [...behindNginx.nginx.matchAll(/^ *(.*;) *# otherwise (.*)$/gm)].filter(([, , what]) =>
    /^\d/.test(what ?? ''),
  )

  it('names what a page’s handshake is answered for each line that it needs', () => {
    expect(needed.map(([, line]) => line?.replace(/\$.*|1\.1/, '').trim())).toEqual([
      'proxy_http_version ;',
      'proxy_set_header Upgrade',
      'proxy_set_header Connection',
      'proxy_set_header Host',
    ])
  })

  it.each(needed.map(([whole, line = '', statuses = '']) => [line, statuses, whole] as const))(
    'without “%s” a handshake is answered %s',
    async (line, statuses, whole) => {
      const { ws } = await startBehindNginx(behindNginx.nginx.replace(whole, ''))
      const { status, text } = await handshake(`${ws}/mqtt`, asPage)
      expect(statuses.match(/\d+/g)).toContain(String(status))
      expect([line, text]).toEqual([line, expect.stringMatching(/a proxy in front|nginx: proxy_http_version/)])
    },
  )

  it('without Host, and with an upstream that has a name, it is answered 421', async () => {
    const gateway = await startTestGateway({ https: { port: 'off' }, ...behindNginx.mqway })
    onTestFinished(() => gateway.close())
    const lines = behindNginx.nginx.replace(/^.*\$http_host.*$/m, '').replace(address, 'http://mqway_backend')
    const upstream = `upstream mqway_backend { server ${gateway.urls.http.replace('http://', '')}; }`
    const url = await startNginx(`${lines}\n${upstream}`)
    const { status, text } = await handshake(`${url.replace('http', 'ws')}/mqtt`, asPage)
    expect([status, text]).toEqual([421, expect.stringContaining('Host is mqway_backend')])
  })

  it('without its name among hosts it is answered 421', async () => {
    const { ws } = await startBehindNginx(behindNginx.nginx, { ...behindNginx.mqway, hosts: [] })
    const { status, text } = await handshake(`${ws}/mqtt`, asPage)
    expect([status, text]).toEqual([421, expect.stringContaining('option hosts')])
  })

  it.each([
    ['one address without', {}, 429],
    ['each their own with', { trustedProxies: behindNginx.mqway.trustedProxies }, 101],
  ])('its clients are %s trustedProxies', async (_what, trusted, expected) => {
    const { hosts } = behindNginx.mqway
    const limits = { connectionsPerAddress: 1 }
    const { ws } = await startBehindNginx(behindNginx.nginx, { hosts, limits, ...trusted })
    const first = await handshake(`${ws}/mqtt`, { ...asPage, localAddress: '127.0.0.2' })
    const second = await handshake(`${ws}/mqtt`, { ...asPage, localAddress: '127.0.0.3' })
    expect([first.status, second.status]).toEqual([101, expected])
  })
})

describeWith('nginx', 'behind nginx that connects to a Unix socket', () => {
  it.each([
    ['0666', 101],
    // Only root’s nginx is another user than mqway.
    ['0660', userInfo().uid === 0 ? 502 : 101],
  ])('with the mode %s a handshake is answered %i', async (unixSocketMode, expected) => {
    const directory = await mkdtemp(join(tmpdir(), 'mqway-socket-'))
    onTestFinished(() => rm(directory, { recursive: true }))
    await chmod(directory, 0o755)
    const socket = `unix:${join(directory, 'http')}`
    const gateway = await startTestGateway({
      ...behindNginx.mqway,
      http: { port: socket, unixSocketMode },
      https: { port: 'off' },
    })
    onTestFinished(() => gateway.close())
    const url = await startNginx(behindNginx.nginx.replace(address, `http://${socket}`))
    const { status } = await handshake(`${url.replace('http', 'ws')}/mqtt`, asPage)
    expect(status).toBe(expected)
  })
})
