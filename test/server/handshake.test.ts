import { chmod, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config/load.js'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { connected, temporaryDirectory } from './rig.js'

let gateway: TestGateway
afterEach(() => gateway.close())

const start = async (config: ConfigInput = {}): Promise<void> => {
  gateway = await startTestGateway(config)
}

const handshake = ['Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13'].concat(
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
)
const host = 'Host: localhost'
const mqtt = 'Sec-WebSocket-Protocol: mqtt'

/** The head of the answer to a request. */
async function ask(requestLine: string, ...headers: string[]): Promise<string> {
  const socket = await connected(Number(new URL(gateway.urls.http).port))
  socket.write(`${[requestLine, ...headers].join('\r\n')}\r\n\r\n`)
  let text = ''
  for await (const chunk of socket) {
    text += chunk
    if (text.includes('\r\n\r\n')) break
  }
  return text
}

const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d+) /.exec(answer)?.[1])

describe.each(['/mqtt', '/v1/socket', '/rrr/news'])('a handshake at %s', path => {
  const line = `GET ${path} HTTP/1.1`
  const all = path === '/mqtt' ? [...handshake, mqtt] : handshake

  it('is 101 where it is right', async () => {
    await start()
    expect(statusOf(await ask(line, host, ...all))).toBe(101)
    expect(statusOf(await ask(line, host, ...all, 'Content-Length: 0'))).toBe(101)
  })

  it.each([
    ['HTTP/1.0', `GET ${path} HTTP/1.0`, [host]],
    ['no Host', line, []],
    ['two Hosts', line, [host, 'host: localhost']],
    ['two different Hosts', line, [host, 'Host: other.example']],
    ['a body', line, [host, 'Content-Length: 5']],
    ['a body in chunks', line, [host, 'Transfer-Encoding: chunked']],
  ])('is 400 with %s', async (_name, requestLine, headers) => {
    await start()
    expect(statusOf(await ask(requestLine, ...headers, ...all))).toBe(400)
  })
})

it('is 400 for an upgrade to something else without Host', async () => {
  await start()
  const upgrade = ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA']
  expect(statusOf(await ask('GET / HTTP/1.1', ...upgrade))).toBe(400)
  expect(statusOf(await ask('GET / HTTP/1.1', host, ...upgrade))).toBe(200)
})

describe('empty elements of a list', () => {
  it.each([
    ['mqtt,', 'mqtt'],
    ['mqtt,,mqttv3.1', 'mqtt'],
    [', ,mqttv3.1\t, ,', 'mqttv3.1'],
    ['chat,,mqtt', 'mqtt'],
  ])('of %j are ignored', async (offered, chosen) => {
    await start()
    const answer = await ask('GET /mqtt HTTP/1.1', host, ...handshake, `Sec-WebSocket-Protocol: ${offered}`)
    expect([statusOf(answer), /^sec-websocket-protocol: (.*)\r$/im.exec(answer)?.[1]]).toEqual([101, chosen])
  })

  it('are ignored in Upgrade', async () => {
    await start()
    const [, ...others] = handshake
    expect(statusOf(await ask('GET /mqtt HTTP/1.1', host, 'Upgrade: ,WebSocket,', ...others, mqtt))).toBe(101)
  })

  it.each([',', ',,', 'mqtt, mqtt', 'mqtt,,mqtt', 'mqtt, a b', 'mqtt,"x"'])(
    'do not make a list of %j',
    async offered => {
      await start()
      const answer = await ask('GET /mqtt HTTP/1.1', host, ...handshake, `Sec-WebSocket-Protocol: ${offered}`)
      expect(statusOf(answer)).toBe(400)
    },
  )
})

describe('the path of a tunnel', () => {
  it.each([
    ['/%6dqtt', 101],
    ['/%6D%71tt/', 101],
    ['/mqtt%2f', 404],
    ['/%256dqtt', 404],
  ])('%s is answered %i', async (path, status) => {
    await start()
    expect(statusOf(await ask(`GET ${path} HTTP/1.1`, host, ...handshake, mqtt))).toBe(status)
    if (status === 101) expect(statusOf(await ask(`GET ${path} HTTP/1.1`, host))).toBe(426)
  })

  it('is the same however the configuration spells it', async () => {
    await start({ tunnels: [{ path: '/%6dqtt%2Fx' }, { pathPrefix: '/%7euser/' }] })
    for (const path of ['/mqtt%2Fx', '/%6dqtt%2Fx', '/~user/1', '/%7Euser/1'])
      expect(statusOf(await ask(`GET ${path} HTTP/1.1`, host, ...handshake, mqtt))).toBe(101)
  })

  it('leads to the first tunnel that matches, and is refused where it is denied, however it is spelt', async () => {
    const tunnels = [{ path: '/closed', allow: ['192.0.2.1'] }, { pathPrefix: '/' }]
    await start({ tunnels, deny: ['/secret'], push: 'off' })
    for (const path of ['/closed', '/%63losed', '/secret', '/%73ecret', '/x%2Fsecret', '/x%2F%73ecret'])
      expect([path, statusOf(await ask(`GET ${path} HTTP/1.1`, host, ...handshake, mqtt))]).toEqual([path, 403])
  })
})

describe('the file of a Unix socket', () => {
  it.each([
    [undefined, 0o660],
    ['0666', 0o666],
    [666, 0o666],
    ['600', 0o600],
  ])('has the mode %j: %i', async (unixSocketMode, mode) => {
    const directory = await temporaryDirectory()
    await chmod(directory, 0o700)
    const [http, mqtt] = [join(directory, 'http'), join(directory, 'mqtt')]
    const more = unixSocketMode === undefined ? {} : { unixSocketMode }
    await start({ http: { port: `unix:${http}`, ...more }, mqtt: { port: `unix:${mqtt}`, ...more } })
    for (const file of [http, mqtt]) expect((await stat(file)).mode & 0o777).toBe(mode)
  })

  it.each(["'0o660'", 'rw', "'0888'", "'060'", '432', '0', '-660', '0o660'])('cannot have the mode %s', async mode => {
    await start()
    await writeFile(join(gateway.directory, 'mqway.yaml'), `http: { unixSocketMode: ${mode} }`)
    expect(() => loadConfig({ argv: [], env: {}, cwd: gateway.directory })).toThrow(/http.unixSocketMode: .*octal/)
  })

  it('has the mode that YAML without quotes says', async () => {
    await start()
    await writeFile(join(gateway.directory, 'mqway.yaml'), 'http: { unixSocketMode: 0664 }')
    const { config } = loadConfig({ argv: [], env: {}, cwd: gateway.directory })
    expect(config.http.unixSocketMode).toBe(0o664)
  })
})
