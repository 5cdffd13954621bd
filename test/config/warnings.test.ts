import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.js'
import { fileModes, riskWarnings } from '../../src/config/warnings.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-warnings-'))
afterAll(() => rmSync(directory, { recursive: true }))

function write(name: string, text: string, mode: number): void {
  writeFileSync(join(directory, name), text)
  chmodSync(join(directory, name), mode)
}

write('private', '', 0o640)
write('open', '', 0o644)

function warnings(yaml: string, mode = 0o640): string[] {
  write('mqway.yaml', yaml, mode)
  const loaded = loadConfig({ argv: [], env: {}, cwd: directory })
  return riskWarnings(loaded, fileModes(directory))
}

const wide = 'host: 0.0.0.0\nhttps: {cert: private, key: private}\n'
const secret = '0123456789abcdef0123456789abcdef'

describe('warnings of what is risky', () => {
  test('the default has none', () => expect(warnings('')).toEqual([]))

  test('nor has a public gateway that knows everybody, over TLS', () => {
    expect(warnings(`${wide}http: {port: off}\nmqtt: {port: off}\naccess: {htpasswd: private}`)).toEqual([])
  })

  test('anybody may do everything from other machines', () => {
    expect(warnings(`${wide}anonymous: true`)).toEqual([
      'anonymous: clients on other machines can connect without credentials (http, https, mqtt, mqtts), and publish and read every topic',
    ])
  })

  test('anybody may connect from other machines, as a rule says', () => {
    expect(warnings(`${wide}access: {rules: [{to: anonymous, subscribe: [a]}]}`)).toEqual([
      'anonymous: clients on other machines can connect without credentials (http, https, mqtt, mqtts)',
    ])
  })

  test('anybody may publish, as a rule says; also where only a proxy can connect', () => {
    const rules = '[{to: anonymous, subscribe: [a]}, {to: anonymous, publish: [a]}]'
    expect(warnings(`access: {rules: ${rules}}`)).toEqual([
      'access.rules[1].publish: allows everybody to publish, also without a user name',
    ])
  })

  test('what proves who somebody is goes over the network unencrypted', () => {
    expect(warnings(`${wide}access: {htpasswd: private}`)).toEqual([
      'http.port: takes passwords unencrypted from other machines',
      'mqtt.port: takes passwords unencrypted from other machines',
    ])
    const jwt = `{secretFile: private, cookie: token}`
    expect(warnings(`${wide}mqtt: {port: off}\naccess: {jwt: ${jwt}}`)).toEqual([
      'http.port: takes cookies and tokens unencrypted from other machines',
    ])
    expect(warnings('access: {htpasswd: private}')).toEqual([])
  })

  test.each(['*', 'null'])('pages of any site connect as their visitors: %s', origin => {
    const tunnels = `tunnels: [{path: /a}, {path: /b, origins: [same-origin, "${origin}"]}]`
    const line = `tunnels[1].origins: with ${origin}, pages of any site can connect as their visitors, whose browsers add`
    expect(warnings(`${tunnels}\naccess: {jwt: {secret: ${secret}, cookie: session}}`)).toEqual([`${line} cookies`])
    const both = 'access: {clientCertificates: {ca: private}, webhook: {url: "https://a/", headers: [Cookie]}}'
    expect(warnings(`${tunnels}\n${both}`)).toEqual([`${line} cookies and certificates`])
    expect(warnings(`${tunnels}\naccess: {htpasswd: private}`)).toEqual([])
  })

  test.each(['*', 'null'])('pages of any site use push as their visitors: %s', origin => {
    const push = `push: {origins: [same-origin, "${origin}"]}`
    expect(warnings(`${push}\naccess: {jwt: {secret: ${secret}, cookie: session}}`)).toEqual([
      `push.origins: with ${origin}, pages of any site can connect as their visitors, whose browsers add cookies`,
    ])
    expect(warnings(`${push}\naccess: {htpasswd: private}`)).toEqual([])
    expect(warnings(`push: off\naccess: {jwt: {secret: ${secret}, cookie: session}}`)).toEqual([])
  })

  test('pages of any site read what anybody may (JSONP)', () => {
    const line = 'push.jsonp: pages of any site can read everything that anonymous clients may read'
    expect(warnings('push: {jsonp: true}')).toEqual([line])
    expect(warnings('push: {jsonp: true}\naccess: {rules: [{to: anonymous, subscribe: [a]}]}')).toEqual([line])
    expect(warnings('push: {jsonp: true}\naccess: {htpasswd: private}')).toEqual([])
  })

  test.each([
    ['news/#', 'socket/#', 'push/+ and httpserver/websocket/#'],
    ['socket/+/out, push/#', undefined, 'httpserver/websocket/#'],
    ['+/1/out, push/1, httpserver/+/a/b', 'socket/#', 'push/+ and httpserver/websocket/#'],
    ['socket/#, httpserver/websocket/#, push/+', undefined, undefined],
    ['+/#', undefined, undefined],
  ])('sockets get no answers from another broker: %s', (topics, socket, rrr) => {
    const yaml = `broker: mqtt://b\npush: {topics: [${topics.replaceAll(/[^ ,]+/g, '"$&"')}]}`
    const lines = [
      `push.topics: without ${socket}, what is for one socket (socket/<connection>/out) does not reach it`,
      `push.topics: without ${rrr}, clients of RRR get nothing; compat.rrr: off where there are none`,
    ]
    expect(warnings(yaml)).toEqual(lines.filter(line => !line.includes('undefined')))
    expect(warnings(`${yaml}\ncompat: {rrr: off}`)).toEqual(socket === undefined ? [] : lines.slice(0, 1))
    expect(warnings('broker: mqtt://b')).toEqual([])
  })

  test('keys and verdicts come over http', () => {
    const yaml = 'access: {jwt: {jwks: "http://id/keys"}, webhook: {url: "http://app/"}}'
    expect(warnings(yaml)).toEqual([
      'access.jwt.jwks: an attacker on the network could insert keys into http://; use https://',
      'access.webhook.url: an attacker on the network could read and change http://; use https://',
    ])
    expect(warnings('access: {jwt: {jwks: "http://[::1]/keys"}, webhook: {url: "http://127.0.0.1/"}}')).toEqual([])
  })

  test('passwords over TLS are no risk, and other machines may get the development certificate for MQTT', () => {
    const yaml = 'host: 0.0.0.0\nhttp: {port: off}\nmqtt: {port: off}\nhttps: {port: off}\nmqtts: {port: 8883}'
    expect(warnings(`${yaml}\naccess: {htpasswd: private}`)).toEqual([
      'https.cert: other machines get a development certificate, which no client trusts; name a real one',
    ])
  })

  test('other machines get the development certificate', () => {
    expect(warnings('https: {host: "::"}\naccess: {htpasswd: private}')).toEqual([
      'https.cert: other machines get a development certificate, which no client trusts; name a real one',
    ])
  })

  test.each([
    ['access: {htpasswd: open}', 'access.htpasswd: every user of this machine can read open; chmod o= open'],
    ['access: {jwt: {secretFile: open}}', 'access.jwt.secretFile: every user'],
    ['https: {cert: open, key: open}', 'https.key: every user'],
    ['broker: {url: "mqtts://b", cert: open, key: open}', 'broker.key: every user'],
  ])('others can read a secret: %s', (yaml, line) => {
    const found = warnings(yaml)
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(line)
    expect(warnings(yaml.replaceAll('open', 'private'))).toEqual([])
  })

  test('others can read the secrets in the configuration file', () => {
    const yaml = `broker: {url: "mqtt://b", password: p}\naccess: {jwt: {secret: ${secret}}, webhook: {url: "https://a/", secret: s}}`
    expect(warnings(yaml, 0o644)).toEqual([
      'access.jwt.secret, access.webhook.secret, broker.password: every user of this machine can read mqway.yaml; chmod o= mqway.yaml',
    ])
    expect(warnings(yaml, 0o600)).toEqual([])
    expect(warnings('broker: {url: "mqtt://b"}\npush: {topics: ["#"], username: u, password: p}', 0o644)).toEqual([
      'push.password: every user of this machine can read mqway.yaml; chmod o= mqway.yaml',
    ])
    expect(warnings('access: {webhook: {url: "https://a/?key=s"}}', 0o644)).toEqual([
      'access.webhook.url: every user of this machine can read mqway.yaml; chmod o= mqway.yaml',
    ])
    expect(warnings('access: {webhook: {url: "https://a/"}}', 0o644)).toEqual([])
  })

  test('messages of clients that nobody gets, or not as events', () => {
    const clients = 'clients: {messages: true}'
    expect(warnings(`broker: mqtt://127.0.0.1:1\npush: {${clients}}`)).toEqual([
      'push.clients.messages: no message is published without push.topics',
    ])
    expect(warnings(`broker: mqtt://127.0.0.1:1\npush: {topics: [socket/#, a/#], ${clients}}`)).toEqual(
      expect.arrayContaining([
        'push.topics: without clients/#, messages of clients (push.clients.messages) are no events',
      ]),
    )
    expect(warnings(`push: {${clients}}`)).toEqual([])
  })
})
