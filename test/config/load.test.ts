import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { ConfigError, loadConfig } from '../../src/config/load.js'
import { pushOf } from '../../src/config/push.js'
import { retainedBytesOf } from '../../src/config/schema.js'
import { startWarnings } from '../../src/config/warnings.js'
import { writeConfig } from '../../src/config/write.js'

const root = mkdtempSync(join(tmpdir(), 'mqway-config-'))
afterAll(() => rmSync(root, { recursive: true }))

let directories = 0
/** A directory with a mqway.yaml and whatever else is needed. */
function directory(yaml?: string, files: Record<string, string> = {}): string {
  directories += 1
  const path = join(root, String(directories))
  mkdirSync(path)
  const all = yaml === undefined ? files : { 'mqway.yaml': yaml, ...files }
  for (const [name, text] of Object.entries(all)) {
    mkdirSync(dirname(join(path, name)), { recursive: true })
    writeFileSync(join(path, name), text)
  }
  return path
}

interface Given {
  argv?: readonly string[]
  env?: NodeJS.ProcessEnv
  yaml?: string
  files?: Record<string, string>
}

function load({ argv = [], env = {}, yaml, files }: Given) {
  return loadConfig({ argv, env, cwd: directory(yaml, files) }).config
}

function problems(given: Given): readonly string[] {
  try {
    load(given)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

describe('where a value comes from', () => {
  test('without anything said, everything has its default', () => {
    const config = load({})
    expect(config.http.port).toBe(8080)
    expect(config.broker).toBe('embedded')
    expect(config.mqtt.port).toBe(1883)
    expect(config.tunnels).toMatchObject([{ path: '/mqtt', pingInterval: 30_000, origins: ['same-origin'] }])
    expect(config.limits.headerSize).toBe(16 * 1024)
  })

  test('a flag wins over the environment, that over the file, that over the default', () => {
    const yaml = 'http: {port: 1}'
    const env = { MQWAY_HTTP_PORT: '2' }
    expect(load({ yaml }).http.port).toBe(1)
    expect(load({ yaml, env }).http.port).toBe(2)
    expect(load({ yaml, env, argv: ['--http-port', '3'] }).http.port).toBe(3)
    expect(load({ yaml, env, argv: ['--http-port', '3', '--http-port=off'] }).http.port).toBe('off')
  })

  test('every flag and its variable set the same option', () => {
    const files = { c: '', k: '', 'site/index.html': '' }
    const values: Record<string, string> = {
      broker: 'mqtt://b:1',
      host: '::1',
      'http-port': '81',
      'https-port': 'off',
      'mqtt-port': 'unix:/run/m',
      cert: 'c',
      key: 'k',
      public: 'site',
      data: 'none',
      'log-level': 'warn',
      'log-format': 'json',
    }
    const argv = Object.entries(values).flatMap(([name, value]) => [`--${name}`, value])
    const env = Object.fromEntries(
      Object.entries(values).map(([name, value]) => [`MQWAY_${name.toUpperCase().replace('-', '_')}`, value]),
    )
    const config = load({ argv, files })
    expect(load({ env, files })).toEqual(config)
    expect(config).toMatchObject({
      broker: 'mqtt://b:1',
      host: '::1',
      http: { port: 81 },
      https: { port: 'off', cert: 'c', key: 'k' },
      mqtt: { port: 'unix:/run/m' },
      public: 'site',
      data: 'none',
      log: { level: 'warn', format: 'json' },
    })
  })

  test('the file is --config, else MQWAY_CONFIG, else mqway.yaml', () => {
    const files = { a: 'data: a', b: 'data: b' }
    const env = { MQWAY_CONFIG: 'b' }
    expect(load({ yaml: 'data: c', files }).data).toBe('c')
    expect(load({ yaml: 'data: c', files, env }).data).toBe('b')
    expect(load({ yaml: 'data: c', files, env, argv: ['--config', 'a'] }).data).toBe('a')
  })

  test('an empty variable counts as not set', () => {
    expect(load({ env: { MQWAY_CERT: '', MQWAY_CONFIG: '' } }).https.cert).toBeUndefined()
  })

  test('an empty file is a configuration', () => {
    expect(load({ yaml: '# nothing yet\n' }).http.port).toBe(8080)
  })

  test('the configuration is frozen all the way down', () => {
    const config = load({})
    expect(Object.isFrozen(config)).toBe(true)
    expect(Object.isFrozen(config.tunnels[0]?.origins)).toBe(true)
  })
})

describe('--broker on top of the file', () => {
  test('it is the URL that a mapping without one waits for', () => {
    const yaml = 'broker: {username: u, password: p, connectTimeout: 9s}'
    expect(load({ yaml, argv: ['--broker', 'mqtt://b'] }).broker).toMatchObject({
      url: 'mqtt://b',
      username: 'u',
      password: 'p',
      connectTimeout: 9000,
    })
  })

  test('it sends no password or certificate of one broker to another', () => {
    const yaml =
      'broker: {url: mqtts://a, username: u, password: p, servername: s, proxyProtocol: v2, connectTimeout: 9s}'
    expect(load({ yaml, argv: ['--broker', 'mqtt://b'] }).broker).toEqual({
      url: 'mqtt://b',
      connectTimeout: 9000,
      balance: 'failover',
      proxyProtocol: 'off',
    })
  })

  test('embedded replaces the whole mapping', () => {
    expect(load({ yaml: 'broker: {url: mqtts://a}', argv: ['--broker', 'embedded'] }).broker).toBe('embedded')
  })
})

describe('what is wrong', () => {
  test('all of it is said at once, with place, option, value and what would be right', () => {
    const yaml = [
      'http: {prot: 3, port: eighty}',
      'https:',
      '  cert: missing.pem',
      'anonymos: true',
      'broker: {url: mqtt://b, conectTimeout: 3s}',
      'tunnels:',
      '  - path: mqtt',
      '  - {}',
      'limits: {headerSize: 5, connections: 0, handshakeTimeout: 9h}',
      'log: {level: loud}',
    ].join('\n')
    const given = { yaml, argv: ['--mqtt-port', '18y', '--http-prot', '8'], env: { MQWAY_LOG_FORMATS: 'json' } }
    const duration = 'must be a time with its unit, such as 500ms, 30s, 5m or 1h, from 1ms to 5m'
    const anyPort = 'must be a port from 0 (any free one) to 65535, unix:/path/to/socket, or off'
    expect([...problems(given)].sort()).toEqual(
      [
        '--http-prot: is not an option; did you mean --http-port?',
        `--mqtt-port: mqtt.port: "18y" ${anyPort}`,
        'MQWAY_LOG_FORMATS: is not a variable of mqway; did you mean MQWAY_LOG_FORMAT?',
        'mqway.yaml:1: http.prot: is not an option; did you mean http.port?',
        `mqway.yaml:1: http.port: "eighty" ${anyPort.replace('or off', 'off, or a list of ports')}`,
        'mqway.yaml:3: https.cert: "missing.pem" must be a file that exists',
        'mqway.yaml:3: https.cert: "missing.pem" needs key beside it: the file with its private key',
        'mqway.yaml:4: anonymos: is not an option; did you mean anonymous?',
        'mqway.yaml:5: broker.conectTimeout: is not an option; did you mean broker.connectTimeout?',
        'mqway.yaml:7: tunnels[0].path: "mqtt" must begin with /',
        'mqway.yaml:8: tunnels[1]: this mapping needs exactly one of path, pathPrefix, pathSuffix and pathPattern',
        'mqway.yaml:9: limits.connections: 0 must be a whole number from 1 to 1000000',
        'mqway.yaml:9: limits.headerSize: 5 must be a size with its unit, such as 64KiB or 16MiB, from 1KiB to 1MiB',
        `mqway.yaml:9: limits.handshakeTimeout: "9h" ${duration}`,
        'mqway.yaml:10: log.level: "loud" must be one of trace, debug, info, warn, error, fatal, silent',
      ].sort(),
    )
  })

  test('an error never repeats a password', () => {
    const yaml = 'broker: {url: "mqtt://u:hush@b", password: 12345}\ntunnels: [{path: /a, broker: "mqtt://u:hush@b"}]'
    const lines = problems({ yaml })
    expect(lines).toHaveLength(3)
    expect(lines.join('\n')).not.toMatch(/hush|12345/)
  })

  test.each([
    ['http: {port: 1', 'mqway.yaml:1:15: is not valid YAML: '],
    ['http: {port: 1}\nhttp: {port: 2}', 'mqway.yaml:2:1: is not valid YAML: Map keys must be unique'],
    ['- a\n- b', 'mqway.yaml: must be a mapping of options'],
    ['data: !secret x', 'mqway.yaml:1:7: is not valid YAML: Unresolved tag'],
    ['data: a\n---\ndata: b', 'mqway.yaml:2:1: is not valid YAML: '],
  ])('%j is refused as a file', (yaml, problem) => {
    expect(problems({ yaml })[0]).toContain(problem)
  })

  test('a filter of what is pushed that has more than 100 levels is refused', () => {
    const filter = (levels: number) => Array(levels).fill('+').join('/')
    const yaml = (levels: number) => `push: {topics: [${filter(levels)}]}`
    expect(problems({ yaml: yaml(101) })).toEqual([
      expect.stringMatching(/^mqway\.yaml:1: push\.topics\[0\]: .* must have at most 100 levels$/),
    ])
    expect(problems({ yaml: yaml(100) })).toEqual([])
  })

  test('aliases that multiply without bound are refused', () => {
    const levels = Array.from({ length: 9 }, (_, level) => {
      const inner = level === 0 ? 'x' : `*a${level - 1}`
      return `l${level}: &a${level} [${Array(9).fill(inner).join(', ')}]`
    })
    expect(problems({ yaml: levels.join('\n') })).toEqual([
      expect.stringContaining('is not valid YAML: Excessive alias'),
    ])
  })

  test('a key that is __proto__ is an unknown option', () => {
    expect(problems({ yaml: '__proto__: {anonymous: true}\nhost: 0.0.0.0' })[0]).toContain('__proto__: is not')
  })

  test('a file that is named must be there', () => {
    expect(problems({ argv: ['--config', 'nope.yaml'] })).toEqual([
      expect.stringMatching(/^nope\.yaml: cannot be read: ENOENT/),
    ])
  })

  test.each([
    [['--key'], '--key: needs a value: --key FILE'],
    [['--key', '--cert', 'x'], '--key: needs a value: --key FILE'],
    [['serve'], 'serve: is not expected here; options begin with --'],
    [['--no-such', '8'], '--no-such: is not an option; see mqway --help'],
  ])('the command line %j is refused', (argv, problem) => {
    expect(problems({ argv })[0]).toBe(problem)
  })
})

describe('options that do not fit each other', () => {
  const exposed =
    /^mqway\.yaml:1: (http\.)?host: (".*"|this list) lets other machines connect .*write "anonymous: true"/

  test.each(['host: 0.0.0.0', 'host: "::"', 'host: ["::1", 10.0.0.1]', 'http: {host: example.org}'])(
    '%s is refused without anonymous: true',
    yaml => {
      expect(problems({ yaml })).toEqual([expect.stringMatching(exposed)])
      expect(load({ yaml: `${yaml}\nanonymous: true` }).anonymous).toBe(true)
    },
  )

  test.each(['host: 127.8.0.1', 'host: "::1"', 'host: [localhost, 127.0.0.1]', 'http: {host: 0.0.0.0, port: off}'])(
    '%s is loopback',
    yaml => {
      expect(problems({ yaml })).toEqual([])
    },
  )

  test.each([
    ['http: {port: 1883}', 'mqtt.port: 1883 is where http.port listens already'],
    ['mqtt: {proxyProtocol: true}', 'mqtt.proxyProtocol: true needs the addresses of the proxies in trustedProxies'],
    [
      'https: {port: unix:/a, proxyProtocol: true}\ntrustedProxies: [loopback]',
      'https.proxyProtocol: true is for TCP ports; https.port is a Unix socket with TLS',
    ],
    ['http: {port: 90}\nhttps: {port: 90, host: 127.0.0.1}', 'https.port: 90 is where http.port listens already'],
    ['http: {port: unix:/a}\nhttps: {port: unix:/a}', 'https.port: "unix:/a" is where http.port listens already'],
    ['http: {port: off}\nhttps: {port: off}\nmqtt: {port: off}', 'http.port: "off" leaves nothing to do'],
    ['http: {port: 90}\nmqtts: {port: 90}', 'mqtts.port: 90 is where http.port listens already'],
    ['mqtts: {prot: 90}', 'mqtts.prot: is not an option; did you mean mqtts.port?'],
    ['https: {key: mqway.yaml}', 'https.key: "mqway.yaml" needs cert beside it'],
    ['https: {cert: ., key: mqway.yaml}', 'https.cert: "." must be a file'],
    ['public: mqway.yaml', 'public: "mqway.yaml" must be a directory'],
    ['public: nowhere', 'public: "nowhere" must be a directory that exists'],
    ['broker: {url: mqtt://b, ca: mqway.yaml}', 'broker.ca: "mqway.yaml" needs a url that begins with mqtts://'],
    ['broker: {url: mqtts://b, ca: nope}', 'broker.ca: "nope" must be a file that exists'],
    ['broker: {url: mqtt://b, servername: x}', 'broker.servername: "x" needs a url that begins with mqtts://'],
    ['broker: {url: mqtts://b, cert: mqway.yaml}', 'broker.cert: "mqway.yaml" needs key beside it'],
    ['broker: {url: embedded}', 'broker.url: "embedded" must be mqtt://host:port'],
    ['broker: {}', 'broker.url: must be mqtt://host:port'],
    ['broker: mqtt://b:99999', 'broker: "mqtt://b:99999" must be embedded, mqtt://host:port'],
    ['broker: mqtt://b/topic', 'broker: "mqtt://b/topic" must be embedded, mqtt://host:port'],
    ['tunnels: [{path: /a}, {path: /a/}]', 'tunnels[1].path: "/a/" is what tunnels[0] serves already'],
    ['tunnels: [{path: /a, pathSuffix: b}]', 'tunnels[0]: this mapping needs exactly one of'],
    ['tunnels: [{pathPattern: "("}]', 'tunnels[0].pathPattern: "(" must be a regular expression: '],
    ['trustedProxies: [10.0.0.0/33]', 'trustedProxies[0]: "10.0.0.0/33" must be an address, a CIDR range'],
    ['metrics: {allow: [lan]}', 'metrics.allow[0]: "lan" must be an address, a CIDR range'],
    ['tunnels: [{path: /a, broker: {url: mqtt://b, key: no}}]', 'tunnels[0].broker.key: "no" needs a url'],
    ['broker: {url: mqtt://b, password: "[redacted]"}', 'broker.password: [redacted] must be the password itself'],
  ])('%j is refused', (yaml, problem) => {
    expect(problems({ yaml }).join('\n')).toContain(problem)
  })

  test.each([
    'same-origin',
    '*',
    'null',
    'https://a.example',
    'http://a.example:8080',
    'https://*.a.example',
    '*.a.example',
    'localhost',
    '/^https:\\/\\/[a-z]+$/',
  ])('the origin %s is understood', origin => {
    expect(
      load({ yaml: JSON.stringify({ tunnels: [{ path: '/a', origins: [origin] }] }) }).tunnels[0]?.origins,
    ).toEqual([origin])
  })

  test.each([
    ['{rrr: {prefix: /v1/events}}', 'compat.rrr.prefix: "/v1/events" must not be one of mqway’s own paths'],
    ['{couchdb: {prefix: /healthz}}', 'compat.couchdb.prefix: "/healthz" must not be one of mqway’s own paths'],
    ['{pere: {prefix: /a/..}}', 'compat.pere.prefix: "/a/.." must not have . or .. between its slashes'],
    [
      '{couchdb: {prefix: /pere/feed}}',
      'compat.couchdb.prefix: "/pere/feed" must not be among the paths of compat.pere',
    ],
    ['{pere: {prefix: /}, rrr: {prefix: /admin/connections}}', 'must not be among the paths of compat.pere (/)'],
  ])('compat: %s would be two things at one path', (compat, problem) => {
    expect(problems({ yaml: `compat: ${compat}` })[0]).toContain(problem)
  })

  test.each([
    '{rrr: {prefix: /v10}, couchdb: {prefix: /metrics-of}}',
    '{pere: {prefix: /}, rrr: {prefix: /}, couchdb: {prefix: /}}',
    '{pere: {prefix: /x}, rrr: {prefix: /x}, couchdb: {prefix: /x}}',
    '{pere: off, rrr: {prefix: /pere/feed}}',
  ])('compat: %s is fine', compat => {
    expect(problems({ yaml: `compat: ${compat}` })).toEqual([])
  })

  test.each(['', 'https://a b', 'https://', 'https://a.example/page', '/(/', '**', 'https://a:99999'])(
    'the origin %j is refused',
    origin => {
      const yaml = JSON.stringify({ tunnels: [{ path: '/a', origins: [origin] }] })
      expect(problems({ yaml })[0]).toContain('tunnels[0].origins[0]: ')
    },
  )
})

describe('the MQTT port in front of a broker', () => {
  test.each(['mqtt://127.0.0.1', 'mqtt://localhost:1883', 'mqtt://[::1]:1883'])(
    'it is off when %s is the broker',
    broker => {
      expect(load({ argv: ['--broker', broker] }).mqtt.port).toBe('off')
    },
  )

  test.each(['mqtt://127.0.0.1:1884', 'mqtt://broker.example:1883', 'unix:/run/m.sock'])(
    'it is 1883 when %s is',
    broker => {
      expect(load({ argv: ['--broker', broker] }).mqtt.port).toBe(1883)
    },
  )

  test('a tunnel’s own broker counts too', () => {
    expect(load({ yaml: 'tunnels: [{path: /a, broker: mqtt://127.0.0.1}]' }).mqtt.port).toBe('off')
  })

  test('given explicitly, it is refused, as mqway would connect to itself', () => {
    const argv = ['--broker', 'mqtt://127.0.0.1:1883', '--mqtt-port', '1883']
    expect(problems({ argv })).toEqual([
      expect.stringContaining('--mqtt-port: mqtt.port: 1883 is where the broker listens'),
    ])
  })
})

describe('the port of MQTT over TLS', () => {
  const files = { 'a.crt': '', 'a.key': '' }
  const own = 'https: {cert: a.crt, key: a.key}'
  const portOf = (yaml: string) => load({ yaml, files }).mqtts.port

  test('is 8883 with a certificate of one’s own, and off without', () => {
    expect(portOf(own)).toBe(8883)
    expect(portOf('https: {cert: a.crt, key: a.key, port: off}')).toBe(8883)
    expect(load({ files, argv: ['--cert', 'a.crt', '--key', 'a.key'] }).mqtts.port).toBe(8883)
    expect(portOf('')).toBe('off')
  })

  test.each([
    'mqtt: {port: off}',
    'mqtt: {port: 1884}',
    'mqtt: {host: 127.0.0.1}',
    'broker: mqtt://127.0.0.1',
    'broker: mqtt://broker.example',
    'http: {port: 8883}',
    'tunnels: [{path: /a, broker: mqtts://localhost}]',
  ])('is off with %s', yaml => {
    expect(portOf(`${own}\n${yaml}`)).toBe('off')
  })

  test.each(['', own, `${own}\nbroker: mqtt://broker.example`, `${own}\nmqtt: {port: off}`])(
    'is what is given, with %s',
    yaml => {
      expect(portOf(`${yaml}\nmqtts: {port: 8884}`)).toBe(8884)
      expect(portOf(`${yaml}\nmqtts: {port: off}`)).toBe('off')
    },
  )

  test('is refused where the broker listens, and where it lets other machines pass to another broker', () => {
    expect(problems({ yaml: 'broker: mqtts://localhost\nmqtts: {port: 8883}' })).toEqual([
      expect.stringContaining('mqtts.port: 8883 is where the broker listens'),
    ])
    const wide = 'host: 0.0.0.0\nhttp: {port: off}\nhttps: {port: off}\nmqtt: {port: off}\nmqtts: {port: 8883}'
    const access = 'access: {rules: [{to: anonymous, subscribe: [a]}]}'
    expect(problems({ yaml: `${wide}\nbroker: mqtt://b\n${access}` })).toEqual([
      expect.stringContaining('mqtts.port: 8883 lets other machines connect without authentication to a broker'),
    ])
    expect(problems({ yaml: wide })).toEqual([expect.stringContaining('lets other machines connect')])
    expect(problems({ yaml: `${wide}\n${access}` })).toEqual([])
  })

  test('takes client certificates, also without https', () => {
    const yaml = 'https: {port: off}\nmqtts: {port: 8883}\naccess: {clientCertificates: {ca: a.crt}}'
    expect(problems({ yaml, files })).toEqual([])
  })
})

describe('written down again', () => {
  const yaml = [
    'host: [127.0.0.1, "::1"]',
    'broker: {url: [mqtts://a, mqtts://b:1], connectTimeout: 1500ms, balance: round-robin}',
    'tunnels:',
    '  - {pathPrefix: /x, broker: embedded, pingInterval: off, origins: [/a:b/, "*"]}',
    '  - {pathPattern: "^/(a|b)#$", forceSubprotocol: mqtt}',
    'limits: {headerSize: 65536B, connectSize: 1000B, handshakeTimeout: 90s}',
  ].join('\n')

  test('times and sizes have their units', () => {
    const text = writeConfig(load({ yaml }))
    expect(text).toContain('connectTimeout: 1500ms')
    expect(text).toContain('headerSize: 64KiB')
    expect(text).toContain('connectSize: 1000B')
    expect(text).toContain('handshakeTimeout: 90s')
  })

  test.each([yaml, ''])('it loads as the same configuration', given => {
    const config = load({ yaml: given })
    expect(load({ yaml: writeConfig(config) })).toEqual(config)
  })

  test('secrets are redacted, wherever they are', () => {
    const secret =
      'broker: {url: mqtt://b, password: hush}\ntunnels: [{path: /a, broker: {url: mqtt://b, password: hush}}]'
    const text = writeConfig(load({ yaml: secret }))
    expect(text).not.toContain('hush')
    expect(text.match(/password: "\[redacted\]"/g)).toHaveLength(2)
  })
})

test('a journal in memory keeps less by default, and what is configured counts', () => {
  const push = (text: string) => {
    const { maxEvents, maxBytes } = pushOf(load({ yaml: text })) ?? {}
    return [maxEvents, maxBytes]
  }
  expect(push('data: none')).toEqual([100_000, 128 * 1024 ** 2])
  expect(push('push: { journal: memory }')).toEqual([100_000, 128 * 1024 ** 2])
  expect(push('{}')).toEqual([1_000_000, 1024 ** 3])
  expect(push('{ data: none, push: { maxEvents: 1000000, maxBytes: 1GiB } }')).toEqual([1_000_000, 1024 ** 3])
  expect(retainedBytesOf(load({ yaml: 'data: none' }))).toBe(128 * 1024 ** 2)
  expect(retainedBytesOf(load({ yaml: '{}' }))).toBe(256 * 1024 ** 2)
  expect(retainedBytesOf(load({ yaml: '{ data: none, embedded: { maxRetainedBytes: 1MiB } }' }))).toBe(1024 ** 2)
})

describe('the limits of the built-in broker under their former names, keys of mqtt', () => {
  test('count, and each has a warning that names the new one', () => {
    const cwd = directory('mqtt:\n  port: off\n  maxPacketSize: 1MiB\n  sessionExpiry: 1d\n')
    const loaded = loadConfig({ argv: [], env: {}, cwd })
    expect(loaded.config.mqtt).toMatchObject({ port: 'off' })
    expect(loaded.config.mqtt).not.toHaveProperty('maxPacketSize')
    expect(loaded.config.embedded).toMatchObject({ maxPacketSize: 1024 ** 2, sessionExpiry: 86_400_000 })
    expect(startWarnings(loaded, () => undefined)).toEqual([
      'mqtt.maxPacketSize: this option is named embedded.maxPacketSize now',
      'mqtt.sessionExpiry: this option is named embedded.sessionExpiry now',
    ])
  })

  test('are refused where they are wrong, at their line, and beside the new name', () => {
    expect(problems({ yaml: 'mqtt:\n  port: off\n  maxPacketSize: 1GiB\n' })).toEqual([
      expect.stringMatching(/^mqway\.yaml:3.*embedded\.maxPacketSize: /),
    ])
    expect(problems({ yaml: '{ mqtt: { maxPacketSize: 1MiB }, embedded: { maxPacketSize: 2MiB } }' })).toEqual([
      expect.stringContaining('embedded.maxPacketSize: "2MiB" is also given under its former name, mqtt.maxPacketSize'),
    ])
    expect(problems({ yaml: '{ mqtt: { maxPackets: 1 } }' })).toEqual([expect.stringContaining('mqtt.maxPackets')])
  })
})
