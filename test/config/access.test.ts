import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { algorithmsOf, allowsAnonymous } from '../../src/config/access.js'
import { ConfigError, loadConfig } from '../../src/config/load.js'
import { writeConfig } from '../../src/config/write.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-access-config-'))
afterAll(() => rmSync(directory, { recursive: true }))
for (const name of ['users', 'ca.pem', 'keys.json', 'secret']) writeFileSync(join(directory, name), '')

const secret = '0123456789abcdef0123456789abcdef'

function load(yaml: string) {
  writeFileSync(join(directory, 'mqway.yaml'), yaml)
  return loadConfig({ argv: [], env: {}, cwd: directory }).config
}

function problems(yaml: string): readonly string[] {
  try {
    load(yaml)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

const complete = `
access:
  htpasswd: users
  jwt: {secret: ${secret}, issuer: https://id.example.org, audience: [a, b], cookie: token}
  clientCertificates: {ca: ca.pem, user: san}
  webhook: {url: 'https://app.example.org/mqway', headers: [x-api-key], secret: hush}
  tickets: {expires: 1m}
  rules:
    - {to: anonymous, subscribe: ['news/#']}
    - {to: authenticated, publish: ['chat/%u/#'], subscribe: ['chat/#']}
    - {to: {user: [alice, bob]}, subscribe: ['$SYS/#']}
    - {to: {role: editor}, publish: ['news/#']}
    - {to: {claim: {department: sales, level: 3}}, subscribe: ['sales/%c/100%%']}
`

describe('access:', () => {
  test('everything at once is a configuration, with its defaults', () => {
    const { access } = load(complete)
    expect(access).toMatchObject({
      jwt: { clockTolerance: 10_000, userClaim: 'sub', rolesClaim: 'roles' },
      clientCertificates: { user: 'san' },
      webhook: { timeout: 5000 },
      tickets: { expires: 60_000, max: 10_000 },
    })
    expect(access?.rules?.[0]).toEqual({ to: 'anonymous', publish: [], subscribe: ['news/#'] })
  })

  test('it is written down again without its secrets', () => {
    const text = writeConfig(load(complete))
    expect(text).not.toContain(secret)
    expect(text).not.toContain('hush')
    expect(text.match(/secret: "\[redacted\]"/g)).toHaveLength(2)
    const without = load(complete.replace(`secret: ${secret}`, 'secretFile: secret').replace(', secret: hush', ''))
    expect(load(writeConfig(without))).toEqual(without)
  })

  test('what is in the query of a URL is not written down, and not taken for the URL either', () => {
    const config = load(
      'access: {jwt: {jwks: "https://id.example/keys?code=S3CRET"}, webhook: {url: "https://app.example/who?key=S3CRET&&x=&S3CRET"}}',
    )
    const text = writeConfig(config)
    expect(text).not.toContain('S3CRET')
    expect(text).toContain('url: https://app.example/who?key=[redacted]&&x=[redacted]&[redacted]\n')
    expect(text).toContain('jwks: https://id.example/keys?code=[redacted]\n')
    expect(() => load(text)).toThrow(/access\.webhook\.url: .* must be the URL itself; mqway check prints \[redacted\]/)
    expect(() => load(text)).toThrow(/access\.jwt\.jwks: .* must be the URL itself/)
    const plain = load('access: {webhook: {url: "https://app.example/who?"}}')
    expect(load(writeConfig(plain))).toEqual(plain)
  })

  test.each([
    [
      'access: {webhook: {url: "app.example/who?key=S3CRET"}}',
      'access.webhook.url: "app.example/who?key=[redacted]" must be https://host/path',
    ],
    ['access: {htpasswd: "https://a?S3CRET"}', 'access.htpasswd: "https://a?[redacted]" must be a file'],
    ['access: {}', 'access: this mapping needs at least one of htpasswd, jwt, clientCertificates or webhook, or rules'],
    ['access: {jwt: {secrett: S3CRET}}', 'access.jwt.secrett: is not an option; did you mean access.jwt.secret?'],
    ['access: {jwt: S3CRET}', 'access.jwt: [redacted] must'],
    ['access: {htpaswd: users}', 'access.htpaswd: is not an option; did you mean access.htpasswd?'],
    ['access: {htpasswd: nobody}', 'access.htpasswd: "nobody" must be a file that exists'],
    ['access: {jwt: {}}', 'access.jwt: this mapping needs exactly one of secret, secretFile and jwks'],
    [
      `access: {jwt: {secret: ${secret}, jwks: keys.json}}`,
      'access.jwt: this mapping needs exactly one of secret, secretFile and jwks; there are secret and jwks',
    ],
    [
      'access: {jwt: {jwks: keys.json, algorithms: [RS256, HS256]}}',
      'access.jwt.algorithms[1]: "HS256" does not go with jwks: a public key is no secret. Use RS256, ES256 or EdDSA',
    ],
    [
      `access: {jwt: {secret: ${secret}, algorithms: [RS256]}}`,
      'access.jwt.algorithms[0]: "RS256" does not go with secret, which needs HS256, HS384 or HS512; RS256 needs jwks',
    ],
    [
      `access: {jwt: {secret: ${secret}, algorithms: [none]}}`,
      'access.jwt.algorithms[0]: "none" must be one of HS256, HS384',
    ],
    ['access: {jwt: {secret: short}}', 'access.jwt.secret: [redacted] must have at least 32 bytes for HS256; it has 5'],
    [
      `access: {jwt: {secret: ${secret}, algorithms: [HS256, HS512]}}`,
      'access.jwt.secret: [redacted] must have at least 64 bytes for HS512; it has 32',
    ],
    [
      'access: {jwt: {secret: "[redacted]"}}',
      'access.jwt.secret: [redacted] must be the secret itself; mqway check prints this in its place',
    ],
    ['access: {jwt: {jwks: "ftp://a/keys"}}', 'access.jwt.jwks: "ftp://a/keys" must be a file, or https://host/path'],
    ['access: {jwt: {jwks: "https://u:p@a/keys"}}', 'access.jwt.jwks: "https://[redacted]@a/keys" must be a file, or'],
    [
      'access: {clientCertificates: {ca: ca.pem}}\nhttps: {port: off}',
      'access.clientCertificates: this mapping needs https.port or mqtts.port: only a TLS connection has a certificate',
    ],
    ['access: {webhook: {url: app}}', 'access.webhook.url: "app" must be https://host/path or http://host/path'],
    ['access: {rules: []}', 'access.rules: this list must not be empty'],
    [
      'access: {htpasswd: users, rules: [{to: all, subscribe: [a]}]}',
      'access.rules[0].to: "all" must be anonymous, authenticated, {user: name}, {role: name} or {claim: {name: value}}',
    ],
    [
      'access: {htpasswd: users, rules: [{to: {user: a, role: b}, subscribe: [a]}]}',
      'access.rules[0].to: this mapping needs exactly one of user, role and claim',
    ],
    [
      'access: {htpasswd: users, rules: [{to: {usr: a}, subscribe: [a]}]}',
      'access.rules[0].to.usr: is not an option; did you mean access.rules[0].to.user?',
    ],
    [
      'access: {htpasswd: users, rules: [{to: anonymous}]}',
      'access.rules[0]: this mapping gives nothing: needs publish, subscribe or admin',
    ],
    [
      'access: {rules: [{to: authenticated, subscribe: [a]}]}',
      'access.rules[0].to: "authenticated" needs one of htpasswd, jwt, clientCertificates or webhook: without it, all clients are anonymous',
    ],
    [
      'access: {htpasswd: users, rules: [{to: {role: a}, subscribe: [a]}]}',
      'access.rules[0].to.role: "a" needs jwt or webhook under "access": nothing else gives roles',
    ],
    [
      'access: {htpasswd: users, rules: [{to: {claim: {a: b}}, subscribe: [a]}]}',
      'access.rules[0].to.claim: this mapping needs jwt under "access": only a token has claims',
    ],
    [
      'access: {rules: [{to: anonymous, subscribe: [news/#/x]}]}',
      'access.rules[0].subscribe[0]: "news/#/x" must have # in the last level only, as in news/#',
    ],
    [
      'access: {rules: [{to: anonymous, publish: [ok, "news/%x"]}]}',
      'access.rules[0].publish[1]: "news/%x" must have no other placeholders than %u (user) and %c (client id)',
    ],
    [
      'tunnels: [{path: /a, requireIdentity: true}]',
      'tunnels[0].requireIdentity: true needs one of htpasswd, jwt, clientCertificates or webhook under "access"',
    ],
    ['limits: {upgradesPerSecond: 0}', 'limits.upgradesPerSecond: 0 must be off, or a whole number from 1 to 100000'],
    ['limits: {bytesPerSecond: 5}', 'limits.bytesPerSecond: 5 must be off, or a size with its unit'],
  ])('%s is refused in one line', (yaml, line) => {
    const found = problems(yaml)
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(`: ${line}`)
  })
})

describe('who may listen wide', () => {
  const wide = 'host: 0.0.0.0\n'
  test.each([
    [
      'nothing says who may connect',
      wide,
      [/^mqway\.yaml:1: host: "0\.0\.0\.0" lets other machines connect without authentication: configure "access"/],
    ],
    ['the built-in broker knows them', `${wide}access: {htpasswd: users}`, []],
    ['there are rules for everybody', `${wide}access: {rules: [{to: anonymous, subscribe: ['news/#']}]}`, []],
    [
      'they go through to another broker unseen',
      `${wide}broker: mqtt://b\nmqtt: {port: 1884}\naccess: {htpasswd: users}`,
      [/tunnels\[0\]: .*write "requireIdentity: true" beside it/, /mqtt\.port: 1884 lets other machines .*: use off/],
    ],
    [
      'they have to say who they are before',
      `${wide}broker: mqtt://b\nmqtt: {port: off}\naccess: {htpasswd: users}\ntunnels: [{path: /a, requireIdentity: true}]`,
      [],
    ],
    ['it is said in so many words', `${wide}anonymous: true\nbroker: mqtt://b\naccess: {htpasswd: users}`, []],
  ])('where %s', (_case, yaml, lines) => {
    const found = problems(yaml)
    expect(found).toHaveLength(lines.length)
    for (const [index, line] of lines.entries()) expect(found[index]).toMatch(line)
  })
})

test.each([
  ['anonymous: false', true],
  ['access: {htpasswd: users}', false],
  ['access: {htpasswd: users}\nanonymous: true', true],
  ['access: {htpasswd: users, rules: [{to: authenticated, subscribe: [a]}]}', false],
  ['access: {htpasswd: users, rules: [{to: anonymous, subscribe: [a]}]}', true],
])('%s lets somebody without a name in: %s', (yaml, expected) => {
  expect(allowsAnonymous(load(yaml))).toBe(expected)
})

test.each([
  [`{secret: ${secret}}`, ['HS256']],
  ['{jwks: keys.json}', ['RS256', 'ES256', 'EdDSA']],
  ['{jwks: keys.json, algorithms: [PS256]}', ['PS256']],
])('a token for %s has to be signed with %j', (jwt, algorithms) => {
  const config = load(`access: {jwt: ${jwt}}`)
  expect(config.access?.jwt && algorithmsOf(config.access.jwt)).toEqual(algorithms)
})
