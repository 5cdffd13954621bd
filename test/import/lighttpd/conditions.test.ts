import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type ConfigInput, configSchema } from '../../../src/config/schema.js'
import { type Finding, importLighttpd } from '../../../src/import/lighttpd/lighttpd.js'

/** The imported configuration with its text, and what a person has to decide. */
function imported(text: string) {
  const { yaml, findings } = importLighttpd(text, { fileName: 'l.conf', readInclude: () => [], env: {}, cwd: '/' })
  const config: ConfigInput = parse(yaml)
  configSchema.parse(config)
  const lines = (list: readonly Finding[]) => list.map(({ line, message }) => `${line}: ${message}`)
  return { config, yaml, decisions: lines(findings.filter(finding => finding.needsDecision)) }
}

const host = '( ( "host" => "127.0.0.1", "port" => 1883 ) )'
const everywhere = `wstunnel.server = ( "" => ${host} )\nwstunnel.frame-type = "binary"\n`
const tunnel = `wstunnel.server = ( "/mqtt" => ${host} )\nwstunnel.frame-type = "binary"\n`

/** The tunnels without what they have in common. */
function tunnelsOf(text: string) {
  return (imported(text).config.tunnels ?? []).map(({ broker, origins, subprotocols, ...own }) => own)
}

describe('a tunnel under a condition', () => {
  test.each([
    ['$HTTP["url"] =~ "^/mqtt"', { pathPrefix: '/mqtt' }],
    ['$HTTP["url"] =^ "/mqtt"', { pathPrefix: '/mqtt' }],
    ['$HTTP["url"] =$ ".ws"', { pathSuffix: '.ws' }],
    ['$HTTP["url"] == "/mqtt"', { pathPattern: '^/mqtt$' }],
    ['$HTTP["url"] =~ "^/ws$"', { pathPattern: '^/ws$' }],
    ['$HTTP["url"] =~ "^/chat-ws($|/)"', { pathPattern: '^/chat-ws($|/)' }],
    ['$HTTP["url"] =~ "mqtt|ws"', { pathPattern: 'mqtt|ws' }],
    ['$HTTP["url"] != "/x"', { pathPattern: '^(?!/x$)' }],
    ['$HTTP["url"] !~ "^/x"', { pathPattern: '^(?!/x)' }],
    ['$HTTP["url"] !~ "x$|^y"', { pathPattern: '^(?![^]*(?:x$|^y))' }],
    ['$HTTP["host"] == "a.example"', { pathPrefix: '/', hosts: ['a.example'] }],
    ['$HTTP["host"] =~ "(^|\\.)a\\.example$"', { pathPrefix: '/', hosts: ['/(^|\\.)a\\.example$/'] }],
    ['$HTTP["remoteip"] == "10.0.0.0/8"', { pathPrefix: '/', allow: ['10.0.0.0/8'] }],
  ])('%s is at %j', (condition, own) => {
    expect(tunnelsOf(`${condition} {\n${everywhere}}`)).toEqual([own])
  })

  test('has the settings of its block, and of those that hold with it', () => {
    const text = `wstunnel.ping-interval = 5
$HTTP["url"] =~ "^/a" {
${everywhere}wstunnel.origins = ( "https://a.example" )
setenv.set-response-header = ( "Sec-WebSocket-Protocol" => "mqtt" )
}
$HTTP["url"] =~ "^/b" {
${everywhere}wstunnel.ping-interval = 20
}`
    expect(tunnelsOf(text)).toEqual([
      { pathPrefix: '/b', pingInterval: '20s' },
      { pathPrefix: '/a', requireOrigin: true, forceSubprotocol: 'mqtt', pingInterval: '5s' },
    ])
  })

  test('of an else is there where the conditions before it are false', () => {
    const text = `$HTTP["url"] =~ "^/a" { ${everywhere} }\nelse $HTTP["url"] =^ "/b" { ${everywhere} }\nelse { ${everywhere} }`
    expect(tunnelsOf(text)).toEqual([{ pathPattern: '^(?!/a)(?!/b)' }, { pathPrefix: '/b' }, { pathPrefix: '/a' }])
  })

  test('is joined with the conditions around it', () => {
    const text = `$SERVER["socket"] == ":81" {\n$HTTP["host"] == "a.example" {\n$HTTP["url"] =~ "^/mqtt" {\n${everywhere}}}}`
    expect(tunnelsOf(text)).toEqual([{ pathPrefix: '/mqtt', hosts: ['a.example'], ports: [81] }])
  })

  test('gives way to a later block that counts for a part of its connections', () => {
    const text = `${tunnel}$HTTP["url"] =~ "^/mqtt/private" { wstunnel.server = ( "/mqtt/private/x" => ${host} ) }`
    expect(tunnelsOf(text)).toEqual([{ pathPrefix: '/mqtt/private/x' }, { pathPattern: '^(?=/mqtt)(?!/mqtt/private)' }])
  })

  test.each([
    ['$HTTP["useragent"] =~ "x"', 'mqway does not look at $HTTP["useragent"] =~ "x"'],
    ['$HTTP["querystring"] == "x"', 'mqway does not look at $HTTP["querystring"] == "x"'],
    ['$HTTP["remoteip"] != "10.0.0.0/8"', 'mqway cannot say $HTTP["remoteip"] != "10.0.0.0/8"'],
    ['$HTTP["url"] =~ "^/[[:alpha:]]+"', 'JavaScript has no regular expression for its condition'],
  ])(
    'that mqway has no words for (%s) is left out as a comment, and nothing is open in its place',
    (condition, reason) => {
      const { config, yaml, decisions } = imported(`${condition} {\n${everywhere}}`)
      expect(config).toMatchObject({ broker: { url: 'mqtt://127.0.0.1:1883' }, tunnels: [] })
      expect(config.anonymous).toBeUndefined()
      expect(yaml).toContain(`# Left out (l.conf:2): ${reason}`)
      expect(decisions).toEqual([`2: this tunnel is left out: ${reason}`])
    },
  )
})

describe('what lighttpd kept closed', () => {
  test('is a list of ends of paths, or of patterns under a condition', () => {
    const { config, decisions } = imported(`${tunnel}
url.access-deny = ( "~", ".inc" )
static-file.exclude-extensions = ( ".php" )
$HTTP["url"] =~ "^/private/" { url.access-deny = ( "" ) }
$HTTP["url"] =~ "^/a" { url.access-deny = ( ".b" ) }`)
    expect(config.deny).toEqual(['~', '.inc', '/^/private//', '/^(?=/a)(?=[^]*(?:\\.b$))/', '.php'])
    expect(decisions).toEqual([
      '7: url.access-deny: in lighttpd this list replaces the one before it; mqway refuses what either refuses',
    ])
  })

  test('are programs, whose source is not served', () => {
    const { config, decisions } = imported(
      `${tunnel}cgi.assign = ( ".pl" => "/usr/bin/perl" )\nfastcgi.server = ( "/api" => ( ( "host" => "x", "port" => 1 ) ) )`,
    )
    expect(config.deny).toEqual(['.pl', '/^/api/'])
    expect(decisions.map(line => line.slice(0, 14))).toEqual(['3: cgi.assign ', '4: fastcgi.ser'])
  })

  test('are addresses, for everything or for one tunnel', () => {
    const outside = '$HTTP["remoteip"] != "10.0.0.0/8" { url.access-deny = ( "" ) }'
    expect(imported(`${tunnel}${outside}`).config.limits).toEqual({ allow: ['10.0.0.0/8'] })
    expect(tunnelsOf(`${tunnel}$HTTP["url"] =~ "^/mqtt" { ${outside} }`)).toEqual([
      { pathPrefix: '/mqtt', allow: ['10.0.0.0/8'] },
    ])
  })

  test('are the tunnels that everything is denied of under a condition that mqway does not look at', () => {
    const { config, decisions } = imported(`${tunnel}$HTTP["cookie"] !~ "key" { url.access-deny = ( "" ) }`)
    expect(config.tunnels).toEqual([])
    expect(decisions.join()).toContain('url.access-deny in line 3 refuses it under $HTTP["cookie"] !~ "key"')
  })

  test('is a tunnel with a login that mqway has too', () => {
    const { config } = imported(`${tunnel}auth.backend = "htpasswd"\nauth.backend.htpasswd.userfile = "/etc/users"
auth.require = ( "/mqtt" => ( "method" => "basic", "realm" => "x", "require" => "valid-user" ) )`)
    expect(config).toMatchObject({
      access: { htpasswd: '/etc/users' },
      tunnels: [{ pathPrefix: '/mqtt', requireIdentity: true }],
      public: 'off',
    })
    expect(config.deny).toBeUndefined()
    expect(config.anonymous).toBeUndefined()
  })

  test.each([
    'auth.require = ( "" => ( "method" => "digest", "realm" => "x", "require" => "valid-user" ) )',
    'auth.require = ( "/m" => ( "method" => "basic", "realm" => "x", "require" => "user=a" ) )',
    'magnet.attract-raw-url-to = ( "/x.lua" )',
    'secdownload.secret = "x"',
    'url.rewrite-once = ( "^/mqtt" => "/" )',
    'evasive.max-conns-per-ip = 1',
  ])('by %s is left out', directive => {
    const { config, decisions } = imported(`${tunnel}server.document-root = "/www"\n${directive}`)
    expect(config).toMatchObject({ tunnels: [] })
    expect(decisions.length).toBeGreaterThan(0)
  })

  test.each([
    'url.rewrite-if-not-file = ( "" => "/index.php" )',
    'simple-vhost.server-root = "/srv"',
    'auth.require = ( "/" => ( "method" => "basic", "realm" => "x", "require" => "valid-user" ) )',
    'server.follow-symlink = "disable"',
    '$HTTP["referer"] !~ "x" { url.access-deny = ( "" ) }',
    '$SERVER["socket"] == ":81" { server.document-root = "/other" }',
  ])('is the directory under %s, with the reason in the file', directive => {
    const { config, yaml, decisions } = imported(`${tunnel}server.document-root = "/www"\n${directive}`)
    expect(config.public).toBe('off')
    expect(yaml).toMatch(/# Left out: .+\n# public: \/www\npublic: off/)
    expect(decisions.join()).toContain('/www is not served: ')
  })

  test('is everything that needs a certificate', () => {
    const tls = 'ssl.engine = "enable"\nssl.pemfile = "c"\nssl.verifyclient.activate = "enable"\n'
    const { config } = imported(`${tunnel}${tls}ssl.ca-file = "ca"\nserver.document-root = "/www"`)
    expect(config).toMatchObject({
      access: { clientCertificates: { ca: 'ca' } },
      tunnels: [{ requireIdentity: true }],
      public: 'off',
    })
    expect(config.https).not.toHaveProperty('chain')
    expect(imported(`${tunnel}${tls}`).config.tunnels).toEqual([])
  })
})

describe('the rest of a configuration', () => {
  test('sends plain requests on to https where lighttpd did, and has no plain tunnel then', () => {
    const { config } = imported(
      `${tunnel}$SERVER["socket"] == ":443" { ssl.engine = "enable" ssl.pemfile = "c" }\n$HTTP["scheme"] == "http" { url.redirect = ( "" => "https://\${url.authority}\${url.path}" ) }`,
    )
    expect(config.http).toEqual({ port: 80, redirect: true })
    expect(config.tunnels).toMatchObject([{ pathPrefix: '/mqtt', ports: [443] }])
  })

  test('has no tunnel where lighttpd redirected', () => {
    const { config, decisions } = imported(
      `${tunnel}url.redirect = ( "^/(old|mqtt/x)$" => "/new" )\n$HTTP["host"] == "b" { url.redirect = ( "" => "http://a" ) }`,
    )
    expect(config.tunnels).toMatchObject([{ pathPattern: '^(?=/mqtt)(?!/(old|mqtt/x)$)', hosts: ['/^(?!b$)/'] }])
    expect(decisions.map(line => line[0])).toEqual(['3', '4'])
    expect(imported(`${tunnel}url.redirect = ( "^/mqtt" => "/new" )`).config.tunnels).toEqual([])
  })

  test('names every line of a directive that is added to', () => {
    const { decisions } = imported(`${tunnel}server.kbytes-per-second = 1\nserver.kbytes-per-second += 2`)
    expect(decisions.map(line => line[0])).toEqual(['3', '4'])
  })

  test('as lighttpd -p prints it is the same', () => {
    const flat = `config {\nvar.CWD = "/x"\nvar.PID = 1\nserver.port = 8080\n$HTTP["url"] =^ "/mqtt" {\n# block 1\n${everywhere}}\n}`
    expect(imported(flat).config).toMatchObject({ http: { port: 8080 }, tunnels: [{ pathPrefix: '/mqtt' }] })
  })

  test.each([
    ['include_shell "cat conf.d/*.conf \'/x.conf\'"', ['conf.d/*.conf', '/x.conf']],
    ['include_shell "/usr/share/lighttpd/include-conf-enabled.pl"', ['conf-enabled/*.conf']],
    ['include_shell "/usr/share/lighttpd/create-mime.conf.pl"', []],
  ])('%s includes %j', (line, patterns) => {
    const asked: string[] = []
    importLighttpd(`${tunnel}${line}`, {
      fileName: 'l.conf',
      readInclude: pattern => {
        asked.push(pattern)
        return [{ fileName: 'x', text: '' }]
      },
      env: {},
      cwd: '/',
    })
    expect(asked).toEqual(patterns)
  })

  test('listens on IPv6 as use-ipv6.pl makes lighttpd do', () => {
    const { config } = imported(
      `${tunnel}server.port = 81\ninclude_shell "/usr/share/lighttpd/use-ipv6.pl " + server.port`,
    )
    expect(config).toMatchObject({ host: ['0.0.0.0', '::'], http: { port: 81 } })
  })
})
