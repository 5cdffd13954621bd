import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type ConfigInput, configSchema } from '../../../src/config/schema.js'
import { type Finding, importLighttpd, LighttpdError, type ReadInclude } from '../../../src/import/lighttpd/lighttpd.js'

const noFiles: ReadInclude = () => []

function fixture(name: string): string {
  return readFileSync(new URL(`../../fixtures/lighttpd/${name}`, import.meta.url), 'utf8')
}

/** The imported configuration, as the schema reads it, and the warnings as `line: message`. */
function imported(text: string, readInclude = noFiles) {
  const { yaml, findings } = importLighttpd(text, { fileName: 'l.conf', readInclude, env: {}, cwd: '/cwd' })
  const config: ConfigInput = parse(yaml)
  configSchema.parse(config)
  const lines = (list: readonly Finding[]) => list.map(({ line, message }) => `${line}: ${message}`)
  return {
    config,
    yaml,
    warnings: lines(findings),
    decisions: lines(findings.filter(finding => finding.needsDecision)),
  }
}

/** The same of a file that has a tunnel besides `text`. */
function beside(text: string, readInclude = noFiles) {
  return imported(`${text}\nwstunnel.server = ( "/mqtt" => ( ( "host" => "b", "port" => 1883 ) ) )`, readInclude)
}

function wstunnel(server: string, more = ''): NonNullable<ConfigInput['tunnels']> {
  return imported(`wstunnel.server = ( ${server} )\nwstunnel.frame-type = "binary"\n${more}`).config.tunnels ?? []
}

function websocket(server: string, more = ''): NonNullable<ConfigInput['tunnels']> {
  return imported(`websocket.server = ( ${server} )\n${more}`).config.tunnels ?? []
}

const backend = '"host" => "b", "port" => 1883, "type" => "bin"'

describe('the configuration of the article', () => {
  const { config, yaml, warnings } = imported(fixture('article.conf'))

  test('becomes one tunnel on the plain and the TLS port', () => {
    expect(config).toEqual({
      host: '0.0.0.0',
      anonymous: true,
      http: { port: 80 },
      https: {
        port: 443,
        cert: '/etc/lighttpd/certs/sample-certificate.pem',
        key: '/etc/lighttpd/certs/sample-certificate.pem',
      },
      mqtt: { port: 'off' },
      broker: 'mqtt://127.0.0.1:1883',
      tunnels: [{ pathPrefix: '/mqtt', forceSubprotocol: 'mqttv3.1', origins: ['*'] }],
      public: '/var/www',
    })
  })

  test('says in the file why it is anonymous, and where editors find the schema', () => {
    expect(yaml).toMatch(/# lighttpd let everybody in.*\n.*\nanonymous: true/)
    expect(yaml).toContain('# yaml-language-server: $schema=')
  })

  test('gives one warning for each directive that is left out, with its line', () => {
    expect(warnings).toEqual([
      '1: anybody can connect, as with lighttpd: see anonymous and host',
      expect.stringContaining('14: server.document-root: not served are names that begin with a dot'),
      '15: server.upload-dirs is left out: mqway does without it',
      '16: server.errorlog is left out: mqway does without it',
      '17: server.pid-file is left out: mqway does without it',
      expect.stringContaining(
        '18: server.username is left out: mqway does not change its user: start it as "www-data"',
      ),
      expect.stringContaining('19: server.groupname is left out'),
      '25: server.name is left out: mqway does without it: it stands under the condition $SERVER["socket"] == ":443"',
    ])
  })
})

describe('mod_websocket', () => {
  test('the last match wins there and the first one here, so the order is reversed', () => {
    const tunnels = websocket(`"/a" => ( ${backend} ), "/ab" => ( ${backend} ), "/abc" => ( ${backend} )`)
    expect(tunnels.map(tunnel => tunnel.pathPrefix)).toEqual(['/abc', '/ab', '/a'])
  })

  test.each([
    ['/mqtt', { pathPrefix: '/mqtt' }],
    ['^/mqtt', { pathPrefix: '/mqtt' }],
    ['^\\/mqtt\\-x', { pathPrefix: '/mqtt-x' }],
    ['^/a\\.b', { pathPrefix: '/a.b' }],
    ['^\\/mqtt\\/*', { pathPattern: '^/mqtt/*' }],
    ['^/(one|two)$', { pathPattern: '^/(one|two)$' }],
    ['/one$|/two$', { pathPattern: '^(?:/one$|/two$)' }],
    ['/[a\\-z\\/]\\-\\d\\_', { pathPattern: '^/[a\\-z/]-\\d_' }],
    ['.*\\.ws', { pathPattern: '^.*\\.ws' }],
    ['', { pathPrefix: '/' }],
  ])('the key %j, anchored at its start only, becomes %j', (key, path) => {
    expect(websocket(`"${key}" => ( ${backend} )`)).toMatchObject([path])
  })

  test('of two keys that say the same, the last one counts', () => {
    const { config, warnings } = imported(
      'websocket.server = (\n"^/a" => ( "host" => "x", "port" => 1, "type" => "bin" ),\n"/a" => ( "host" => "y", "port" => 1, "type" => "bin" ) )',
    )
    expect(config.broker).toBe('mqtt://y:1')
    expect(config.tunnels).toHaveLength(1)
    expect(warnings).toContain('2: this tunnel is left out: another one takes all of its connections')
  })

  test('a list of origins is anchored at the start, and refuses a client without Origin', () => {
    const origins = '"origins" => ( "^https:\\/\\/a\\..*", "http://b", "x|y" )'
    expect(websocket(`"/a" => ( ${backend}, ${origins} )`)).toMatchObject([
      { origins: ['/^https://a\\..*/', '/^http://b/', '/^(?:x|y)/'], requireOrigin: true },
    ])
  })

  test('one origin that is no list allows all of them, as none does', () => {
    const tunnels = websocket(`"/a" => ( ${backend}, "origins" => "^https" ), "/b" => ( ${backend} )`)
    expect(tunnels).toMatchObject([{ origins: ['*'] }, { origins: ['*'] }])
    expect(tunnels.some(tunnel => tunnel.requireOrigin)).toBe(false)
  })

  test.each([
    ['websocket.ping_interval = 5', '5s'],
    ['websocket.ping_interval = 0', 'off'],
    ['', undefined],
  ])('%j makes the ping interval %s', (line, interval) => {
    expect(websocket(`"/a" => ( ${backend} )`, line)[0]?.pingInterval).toBe(interval)
  })

  test.each([
    ['"host" => "b", "port" => "1883"', 'the default type text breaks MQTT; mqway sends binary frames'],
    ['"host" => "b", "port" => "1883", "type" => "text"', 'the type text breaks MQTT; mqway sends binary frames'],
    [`${backend}, "locale" => "UTF-8"`, 'locale is not carried over'],
  ])('( %s ) is carried over with a warning', (options, warning) => {
    const { config, warnings } = imported(`websocket.server = (\n"/a" => ( ${options} ) )`)
    expect(config.broker).toBe('mqtt://b:1883')
    expect(warnings.join('\n')).toContain(`2: websocket.server "/a": ${warning}`)
  })

  test.each(['"host" => "b"', '"port" => 1', '"host" => "b", "port" => "x"', '"host" => "b", "port" => 0', ''])(
    'a tunnel of ( %s ) leads nowhere and is left out with a warning',
    options => {
      const { config, warnings } = beside(`websocket.server = (\n"/a" => ( ${options} ) )`)
      expect(config.tunnels).toMatchObject([{ pathPrefix: '/mqtt' }])
      expect(warnings.join('\n')).toContain('2: websocket.server "/a" is not carried over: ')
    },
  )

  test('websocket.timeout is a warning, as it cut off quiet clients', () => {
    const { warnings } = imported(`websocket.server = ( "/a" => ( ${backend} ) )\nwebsocket.timeout = 30`)
    expect(warnings.join('\n')).toContain('2: websocket.timeout is left out')
  })
})

describe('mod_wstunnel', () => {
  test('keys that begin with / are prefixes, others suffixes, in the order of the file', () => {
    const host = '( ( "host" => "b", "port" => 1 ) )'
    expect(wstunnel(`"/a" => ${host}, ".ws" => ${host}, "" => ${host}`)).toMatchObject([
      { pathPrefix: '/a' },
      { pathSuffix: '.ws' },
      { pathPrefix: '/' },
    ])
  })

  test.each([
    ['( ( "host" => "b", "port" => "1883" ) )', { url: 'mqtt://b:1883', connectTimeout: '8s' }],
    ['( "label" => ( "host" => "b", "connect-timeout" => 3 ) )', { url: 'mqtt://b:80', connectTimeout: '3s' }],
    ['( ( "host" => "::1", "port" => 1883 ) )', { url: 'mqtt://[::1]:1883', connectTimeout: '8s' }],
    ['( ( "host" => "/run/m.sock" ) )', { url: 'unix:/run/m.sock', connectTimeout: '8s' }],
    ['( ( "socket" => "/run/m.sock" ) )', { url: 'unix:/run/m.sock', connectTimeout: '8s' }],
    [
      '( ( "host" => "a" ), ( "host" => "b" ) )',
      { url: ['mqtt://a:80', 'mqtt://b:80'], balance: 'least-connections', connectTimeout: '8s' },
    ],
  ])('the hosts %s become the broker %j', (hosts, broker) => {
    expect(imported(`wstunnel.server = ( "/a" => ${hosts} )`).config.broker).toEqual(broker)
  })

  test('the text frames that it sends by default break MQTT, which is a warning', () => {
    const server = 'wstunnel.server = ( "/a" => ( ( "host" => "b" ) ) )'
    expect(imported(server).warnings).toContain(
      '1: the default wstunnel.frame-type text breaks MQTT; mqway sends binary frames',
    )
    expect(imported(`${server}\nwstunnel.frame-type = "Binary"`).warnings.join()).not.toContain('frame-type')
  })

  test('an origin is that origin, or whatever ends in it after a dot', () => {
    const origins = 'wstunnel.origins = ( "https://a.example:8443", "b.example" )'
    expect(wstunnel('"/a" => ( ( "host" => "b" ) )', origins)).toMatchObject([
      { origins: ['https://a.example:8443', '/\\.b\\.example$/'], requireOrigin: true },
    ])
  })

  test('the subprotocol that mod_setenv adds is forced, other headers are headers of responses', () => {
    const { config, decisions } = imported(
      'wstunnel.server = ( "/a" => ( ( "host" => "b" ) ) )\nsetenv.set-response-header = ( "Sec-WebSocket-Protocol" => "mqtt", "X" => "y" )',
    )
    expect(config.tunnels?.[0]?.forceSubprotocol).toBe('mqtt')
    expect(config.headers).toEqual([{ set: { X: 'y' } }])
    expect(decisions).toEqual([])
  })

  test('a value that mqway refuses stays in the file, and the warning says what would be right', () => {
    const text = '$HTTP["remoteip"] == "nowhere" { wstunnel.server = ( "/a" => ( ( "host" => "b" ) ) ) }'
    const { findings } = importLighttpd(text, { fileName: 'l.conf', readInclude: noFiles, env: {}, cwd: '/' })
    const messages = findings.map(({ message }) => message)
    expect(messages).toContainEqual(
      expect.stringContaining('the result needs a correction: tunnels[0].allow[0]: "nowhere" must be'),
    )
  })

  test.each([
    ['round-robin', 'round-robin', false],
    ['fair', 'least-connections', false],
    ['hash', 'least-connections', true],
    ['sticky', 'least-connections', true],
  ])('the balance %s becomes %s', (balance, expected, warned) => {
    const { config, warnings } = imported(
      `wstunnel.server = ( "/a" => ( ( "host" => "a" ), ( "host" => "b" ) ) )\nwstunnel.balance = "${balance}"`,
    )
    expect(config.broker).toMatchObject({ balance: expected })
    expect(warnings.some(warning => warning.includes('wstunnel.balance'))).toBe(warned)
  })

  test('a tunnel of a socket block is served at that port, with the origins of the whole server', () => {
    const { config } = imported(
      'wstunnel.origins = ( "https://a" )\n$SERVER["socket"] == ":8443" {\nwstunnel.server = ( "/a" => ( ( "host" => "b", "port" => 1883 ) ) )\n}',
    )
    expect(config.http).toEqual({ port: [80, 8443] })
    expect(config.tunnels).toMatchObject([
      { pathPrefix: '/a', origins: ['https://a'], requireOrigin: true, ports: [8443] },
    ])
  })
})

describe('listening', () => {
  const listeners = (text: string) => {
    const { host, anonymous, http, https } = beside(text).config
    return { host, anonymous, http: http?.port, https: https?.port }
  }

  test.each([
    ['', { host: '0.0.0.0', anonymous: true, http: 80, https: 'off' }],
    ['server.bind = "127.0.0.1"', { host: '127.0.0.1', anonymous: undefined, http: 80, https: 'off' }],
    ['server.bind = "::1"\nserver.port = "8080"', { host: '::1', anonymous: undefined, http: 8080, https: 'off' }],
    ['server.use-ipv6 = "enable"', { host: '::', anonymous: true, http: 80, https: 'off' }],
    [
      'server.bind = "/run/l.sock"',
      { host: '127.0.0.1', anonymous: undefined, http: 'unix:/run/l.sock', https: 'off' },
    ],
    ['ssl.engine = "enable"\nssl.pemfile = "x"', { host: '0.0.0.0', anonymous: true, http: 'off', https: 443 }],
    ['$SERVER["socket"] == "[::]:80" {}', { host: ['0.0.0.0', '::'], anonymous: true, http: 80, https: 'off' }],
    [
      'server.port = 443\n$SERVER["socket"] == ":443" { ssl.engine = "enable" ssl.pemfile = "x" }',
      { host: '0.0.0.0', anonymous: true, http: 'off', https: 443 },
    ],
  ])('%j becomes %j', (text, expected) => {
    expect(listeners(text)).toEqual(expected)
  })

  test('listeners on different addresses keep their own', () => {
    const { config } = beside('server.bind = "127.0.0.1"\n$SERVER["socket"] == ":443" { ssl.engine = "enable" }')
    expect(config.host).toBeUndefined()
    expect(config.http).toEqual({ port: 80, host: '127.0.0.1' })
    expect(config.https).toEqual({ port: 443, host: '0.0.0.0' })
  })

  test('a port that is none is a warning', () => {
    const { config, warnings } = beside(
      'server.port = "x"\n$SERVER["socket"] == ":70000" { }\n$SERVER["socket"] == ":81" { }',
    )
    expect(config.http).toEqual({ port: 81 })
    expect(warnings).toContain('1: this is not a port from 1 to 65535: it is not listened on')
    expect(warnings).toContain('2: this is not a port from 1 to 65535: it is not listened on')
  })

  test('a pattern that JavaScript does not have is left out, with a warning', () => {
    const { config, warnings } = beside(`websocket.server = ( "/a\\z" => ( ${backend} ) )`)
    expect(config.tunnels).toMatchObject([{ pathPrefix: '/mqtt' }])
    expect(warnings.join('\n')).toContain('JavaScript has no such regular expression')
  })

  test('a further port is listened on as well, unless that would open it at another address', () => {
    expect(beside('\n$SERVER["socket"] == ":8081" { }').config.http?.port).toEqual([80, 8081])
    const { config, decisions } = beside('\n$SERVER["socket"] == "127.0.0.1:8081" { }')
    expect(config.http?.port).toBe(80)
    expect(decisions).toEqual([
      '2: 127.0.0.1:8081 is not listened on: mqway would listen on this port at addresses where lighttpd did not',
    ])
  })

  test('the private key is in a file of its own, or in the one of the certificate', () => {
    const files = (text: string) => beside(`ssl.engine = "enable"\n${text}`).config.https
    expect(files('ssl.pemfile = "c"')).toMatchObject({ cert: 'c', key: 'c' })
    expect(files('ssl.pemfile = "c"\nssl.privkey = "k"')).toMatchObject({ cert: 'c', key: 'k' })
    expect(files('$SERVER["socket"] == ":1" { ssl.pemfile = "d" }')).not.toHaveProperty('cert')
  })

  test('certificates of hosts are those of names that clients ask for, the last one first', () => {
    const { config, decisions } = beside(`ssl.engine = "enable"
ssl.pemfile = "a"
$HTTP["host"] =~ "(^|\\.)b\\.example$" { ssl.pemfile = "b" ssl.ca-file = "chain" }
$HTTP["host"] == "c.example" { ssl.pemfile = "c" ssl.privkey = "k" }
$HTTP["useragent"] == "x" { ssl.pemfile = "d" }`)
    expect(config.https).toMatchObject({
      cert: 'a',
      certificates: [
        { hosts: ['c.example'], cert: 'c', key: 'k' },
        { hosts: ['/(^|\\.)b\\.example$/'], cert: 'b', key: 'b', chain: 'chain' },
      ],
    })
    expect(decisions).toEqual([expect.stringContaining('5: ssl.pemfile is not carried over')])
  })
})

describe('the language', () => {
  const root = (text: string) => beside(text).config.public

  test.each([
    ['server.document-root = "/a" + "/b" + 1', '/a/b1'],
    ['var.x = "/a"\nserver.document-root = var.x + "/b"', '/a/b'],
    ['x = 1 + 2\nserver.document-root = "/" + x', '/3'],
    ['server.document-root = "/a"\nserver.document-root := "/b"', '/b'],
    ['server.document-root = "/a"\nserver.document-root += "/b"', '/a/b'],
    ['server.document-root = "/\\"q\\" \\n" # "comment', '/"q" \\n'],
    ['# only\r\nserver.document-root\r\n=\r\n"/a"', '/a'],
    ['global { server.document-root = "/a" }', '/a'],
    [
      '$HTTP["host"] == "x" { server.document-root = "/no" } else { server.document-root = "/no" }\nserver.document-root = "/a"',
      '/a',
    ],
    ['$HTTP["host"] == "x" { global { server.document-root = "/a" } }', '/a'],
  ])('%j makes the document root %s', (text, expected) => {
    expect(root(text)).toBe(expected)
  })

  test('lists are joined with += and +, with trailing commas and nesting', () => {
    const text =
      'l = ( "/a" => ( ( "host" => "a", ), ), )\nl += ( "/b" => ( ( "host" => "b" ) ) )\nwstunnel.server = l + ( )'
    expect(imported(text).config.tunnels).toMatchObject([{ pathPrefix: '/a' }, { pathPrefix: '/b' }])
  })

  test('a directive under a condition is named with it', () => {
    const text =
      '$HTTP["host"] == "a" {\nserver.tag = "x"\n$HTTP["url"] =~ "^/y" { server.kbytes-per-second = 1 }\n}\nelse $HTTP["host"] == "b" {\ndir-listing.activate = "enable" }'
    expect(beside(text).warnings).toEqual(
      expect.arrayContaining([
        '2: server.tag is left out: mqway does without it: it stands under the condition $HTTP["host"] == "a"',
        '3: server.kbytes-per-second is not carried over: it stands under the condition $HTTP["host"] == "a" and $HTTP["url"] =~ "^/y"',
        '6: dir-listing.activate is left out: mqway has nothing like it: it stands under the condition $HTTP["host"] != "a" and $HTTP["host"] == "b"',
      ]),
    )
  })

  test('included files are read where they stand, and warnings name them', () => {
    const files: Record<string, string> = { 'a.conf': 'x = "/a"\nserver.tag = "t"' }
    const readInclude: ReadInclude = name => (files[name] ? [{ fileName: name, text: files[name] }] : [])
    const text =
      'include "a" + ".conf"\nserver.document-root = x\nwstunnel.server = ( "/a" => ( ( "host" => "b", "port" => 1883 ) ) )'
    const { yaml, findings } = importLighttpd(text, { fileName: 'l.conf', readInclude, env: {}, cwd: '/' })
    expect(parse(yaml)).toMatchObject({ public: '/a' })
    expect(findings).toContainEqual({
      file: 'a.conf',
      line: 2,
      message: 'server.tag is left out: mqway does without it',
      needsDecision: false,
    })
  })

  test.each([
    ['\ninclude "gone.conf"', '2:1: include "gone.conf": there is no such file'],
    ['\ninclude_shell "date"', '2:1: include_shell "date": mqway runs no programs to be configured'],
    ['\nserver.document-root = env.ROOT + "/www"', '2:24: env.ROOT is not set; lighttpd would not start either'],
    ['x = y', '1:5: var.y is not set'],
    ['server.document-root = "/srv"', '1:1: there is no tunnel in it'],
  ])('%j is refused, as the rest may depend on it', (text, message) => {
    expect(() => imported(text)).toThrow(LighttpdError)
    expect(() => imported(text)).toThrow(`l.conf:${message}`)
  })

  test.each([
    ['a = ', '1:5: expected a value: "text", a number, a variable or a list ( … ), found the end of the file'],
    ['a = "x', '1:5: this string has no closing "'],
    ['\n\n  a "x"', '3:5: expected = after a, found "x"'],
    ['a = ( "x" "y" )', '1:11: expected , or ), found "y"'],
    ['a = ( , )', '1:7: expected a value'],
    ['$HTTP["host"] == "x" { a = 1', '1:29: expected }, found the end of the file'],
    ['$HTTP["host"] "x" { }', '1:15: expected one of == != =~ !~ =^ =$, found "x"'],
    ['$HTTP[host] == "x" { }', '1:7: expected a name in quotes, found host'],
    ['a = 1\r\na = 2', '2:1: var.a is set already, in line 1; to replace it, write :='],
    ['a = ( "k" => 1,\n"k" => 2 )', '2:1: the key "k" stands twice in this list'],
    ['a = ( "x" ) + "y"', '1:5: a list can only be added to a list'],
    ['ä = 1', '1:1: unexpected character "ä"'],
    [`a = ${'('.repeat(100)}`, '1:69: more than 64 levels of nesting'],
    [`x = "aa"\n${'x := x + x\n'.repeat(40)}`, 'a text of more than 65536 characters'],
  ])('%j is refused with its place', (text, message) => {
    expect(() => imported(text)).toThrow(LighttpdError)
    expect(() => imported(text)).toThrow(message)
  })

  test('a file that includes itself is refused', () => {
    const readInclude: ReadInclude = () => [{ fileName: 'l.conf', text: 'include "l.conf"' }]
    expect(() => imported('include "l.conf"', readInclude)).toThrow(/more than 16 includes inside each other/)
  })
})

describe('whatever the text is', () => {
  /** Pieces that make sense together, so that random sequences get past the first token. */
  const pieces = [
    'server.port',
    'websocket.server',
    'wstunnel.server',
    'wstunnel.origins',
    'ssl.engine',
    'x',
    'include',
    'else',
    'if',
    'global',
    '=',
    '+=',
    ':=',
    '=>',
    '+',
    '(',
    ')',
    '{',
    '}',
    ',',
    '"/mqtt"',
    '"host"',
    '"port"',
    '"b"',
    '"enable"',
    '""',
    '80',
    '"^(a|b)"',
    '$SERVER["socket"] == ":443"',
    '$HTTP["host"] =~',
    '# c\n',
    '\n',
    '\r\n',
    '"host" => "b", "port" => 1',
    '"\\"',
    '\\',
    '\u0000',
  ]
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(fc.constantFrom(...pieces), { maxLength: 60 }).map(list => list.join(' ')),
  )

  test('it is imported as a valid configuration or refused with a place inside it', () => {
    fc.assert(
      fc.property(text, source => {
        try {
          imported(source, () => [{ fileName: 'other.conf', text: source.slice(0, source.length / 2) }])
        } catch (error) {
          if (!(error instanceof LighttpdError)) throw error
          const lines = source.split(/\r\n|\r|\n/)
          expect(error.at.line).toBeLessThanOrEqual(lines.length)
          expect(error.at.column).toBeLessThanOrEqual((lines[error.at.line - 1] ?? '').length + 1)
        }
      }),
      { numRuns: 2000 },
    )
  })

  test('cutting the article’s file anywhere is a valid file or an error at the cut', () => {
    const article = fixture('article.conf')
    fc.assert(
      fc.property(fc.nat(article.length), length => {
        try {
          imported(article.slice(0, length))
        } catch (error) {
          if (!(error instanceof LighttpdError)) throw error
        }
      }),
    )
  })

  test('a mistake that is put between two directives is found in its own line', () => {
    const lines = ['server.port = 80', 'server.bind = "a"', 'x = ( "a", "b" )', 'server.tag = "t"']
    fc.assert(
      fc.property(fc.nat(lines.length), fc.constantFrom(')', '%', '=> 1', '"x"', ']'), (index, mistake) => {
        const source = [...lines.slice(0, index), mistake, ...lines.slice(index)].join('\n')
        expect(() => imported(source)).toThrow(`l.conf:${index + 1}:1: `)
      }),
    )
  })
})
