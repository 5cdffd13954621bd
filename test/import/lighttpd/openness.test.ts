import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type ConfigInput, configSchema } from '../../../src/config/schema.js'
import { importLighttpd } from '../../../src/import/lighttpd/lighttpd.js'

/** The imported configuration with its text, and the sentences for a person to decide. */
function imported(text: string) {
  const { yaml, findings } = importLighttpd(text, { fileName: 'l.conf', readInclude: () => [], env: {}, cwd: '/' })
  const config: ConfigInput = parse(yaml)
  configSchema.parse(config)
  return {
    config,
    yaml,
    decisions: findings.filter(({ needsDecision }) => needsDecision).map(({ message }) => message),
  }
}

const host = '( ( "host" => "127.0.0.1", "port" => 1883 ) )'
const tunnel = `wstunnel.server = ( "/mqtt" => ${host} )\nwstunnel.frame-type = "binary"\n`
const tls = 'ssl.engine = "enable"\nssl.pemfile = "/s.pem"\nssl.ca-file = "/ca.pem"\n'
const certificates = 'ssl.verifyclient.activate = "enable"\nssl.verifyclient.enforce = "enable"\n'
const login = 'auth.require = ( "" => ( "method" => "basic", "realm" => "x", "require" => "valid-user" ) )\n'
const users = 'auth.backend = "htpasswd"\nauth.backend.htpasswd.userfile = "/users"\n'

/** Left out: no tunnel, no broker of its own, nobody without a name, and the reason for a person. */
function expectLeftOut(text: string, reason: string) {
  const { config, decisions } = imported(text)
  expect(config.tunnels).toEqual([])
  expect(config.broker).toMatchObject({ url: 'mqtt://127.0.0.1:1883' })
  expect(config.anonymous).toBeUndefined()
  expect(decisions.join('\n')).toContain(reason)
}

describe('a tunnel is left out', () => {
  test.each([
    [
      `${tls}${tunnel}$HTTP["host"] == "a.example" { ${certificates} }`,
      'ssl.verifyclient.activate in line 6 holds under',
    ],
    [`${tunnel}${users}${login}$HTTP["host"] == "a" { auth.backend = "plain" }`, 'whose users depend on'],
    [`${tunnel}${users.replace('htpasswd"', 'ldap"')}${login}`, 'a login of the kind basic ldap (valid-user)'],
    [`${tunnel}server.modules = ( "mod_access" )`, 'mod_wstunnel is not in server.modules'],
    [`${tunnel}$SERVER["socket"] =~ ":80$" { url.access-deny = ( "" ) }`, 'url.access-deny in line 3 refuses it'],
    [`${tunnel}$HTTP["url"] =~ "^/[[:alpha:]]" { url.access-deny = ( "" ) }`, 'mqway cannot say'],
    [
      `${tunnel}url.redirect = ( "" => "https://a.example/" )`,
      'url.redirect in line 3 leads its connections elsewhere',
    ],
    [`$HTTP["host"] == "A.example" { ${tunnel} }`, 'is never true: lighttpd has hosts in lower case'],
    [`$HTTP["url"] =^ "mqtt" { wstunnel.server = ( "" => ${host} ) }`, 'all begin with /'],
    [
      `${tunnel}extforward.forwarder = ( "all" => "trust" )\n$HTTP["remoteip"] != "10.0.0.0/8" { url.access-deny = ( "" ) }`,
      'extforward.forwarder, which tells them, is not carried over',
    ],
  ])('of %j', (text, reason) => expectLeftOut(text, reason))

  test('that is at one of two addresses with the same port', () => {
    const { config, decisions } = imported(
      `server.bind = "127.0.0.1"\nserver.port = 81\n$SERVER["socket"] == "127.0.0.2:81" { ${tunnel} }`,
    )
    expect(config.tunnels).toEqual([])
    expect(decisions.join()).toContain('it is not at 127.0.0.1:81, and mqway tells sockets apart by their ports alone')
  })

  test('that needs a certificate where another one needs a login, as either would open both', () => {
    const { config, decisions } = imported(
      `${tunnel}${users}$SERVER["socket"] == ":443" { ${tls}${certificates} } else { ${login} }`,
    )
    expect(config.access).toEqual({ htpasswd: '/users' })
    expect(config.tunnels).toMatchObject([{ requireIdentity: true, ports: [80] }])
    expect(decisions.join()).toContain('asks for other users or certificates than another tunnel does')
  })
})

describe('a switch', () => {
  test.each(['"enable"', '"enabled"', '"true"', '"TRUE"', '1', '"1"'])('is on with %s', value => {
    const { config } = imported(
      `${tls.replace('"enable"', value)}${tunnel}${certificates.replaceAll('"enable"', value)}`,
    )
    expect(config.https).toMatchObject({ port: 443 })
    expect(config.tunnels).toMatchObject([{ requireIdentity: true }])
  })

  test.each(['"disable"', '"disabled"', '"false"', '0', '"0"'])('is off with %s', value => {
    expect(imported(`${tls.replace('"enable"', value)}${tunnel}`).config.https).toEqual({ port: 'off' })
  })
})

describe('a person has to look at', () => {
  test.each([
    ['server.chroot = "/srv"', 'server.chroot = "/srv" is not carried over'],
    ['server.systemd-socket-activation = "enable"', 'mqway listens on the ports that stand here'],
    ['server.use-ipv6 = "enable"', 'mqway takes connections over IPv4 at this address, too'],
    ['setenv.set-response-header = ( "Set-Cookie" => "a=b" )', 'the header Set-Cookie is not carried over'],
    [
      '$HTTP["remoteip"] == "10.0.0.0/8" { setenv.add-response-header = ( "X-A" => "b" ) }',
      'mqway sends headers to all addresses',
    ],
    ['server.modules = ( "mod_wstunnel" )\nurl.access-deny = ( "~" )', 'lighttpd ignored it, as mod_access is not in'],
    ['trigger-b4-dl.trigger-url = "^/x"', 'trigger-b4-dl.trigger-url is not carried over'],
    ['url.access-allow = ( ".html", "t" )\nurl.access-deny = ( "~" )', 'also where url.access-deny refuses them'],
    [`${tls}${certificates}ssl.verifyclient.depth = 1`, 'mqway takes longer chains of certificates'],
  ])('%j', (text, reason) => {
    expect(imported(`${tunnel}server.document-root = "/srv"\n${text}`).decisions.join('\n')).toContain(reason)
  })
})

test('a list of subprotocols is none that can be forced', () => {
  const { config, decisions } = imported(
    `${tunnel}setenv.set-response-header = ( "Sec-WebSocket-Protocol" => "binary, base64" )`,
  )
  expect(config.tunnels?.[0]?.forceSubprotocol).toBeUndefined()
  expect(decisions.join()).toContain('the header Sec-WebSocket-Protocol is not carried over')
})

test('names are the same in upper and lower case', () => {
  const { config } = imported(
    `Var.Path = "/mqtt"\nWStunnel.Server = ( var.path => ${host} )\nURL.access-DENY = ( "~" )`,
  )
  expect(config.tunnels).toMatchObject([{ pathPrefix: '/mqtt' }])
  expect(config.deny).toEqual(['~'])
})

test.each([
  ['$HTTP["host"] =~ "^a\\.example$"', '/(?!:)^a\\.example$/'],
  ['$HTTP["host"] == "[::1]"', '/^\\[::1\\]$/'],
  ['$HTTP["host"] == "a.example:8080"', '/(?!:)^a\\.example(?::8080)?$/'],
  ['$HTTP["host"] != "a.example:8080"', '/(?!:)^(?!a\\.example(?::8080)?$)/'],
])('%s is about the port where clients send one', (condition, pattern) => {
  const { config } = imported(`server.port = 8080\n${condition} { ${tunnel} }`)
  expect(config.tunnels).toMatchObject([{ hosts: [pattern] }])
})
