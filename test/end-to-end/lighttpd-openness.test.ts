import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { get, makeRoot, type Pair, startPair, upgradeStatus } from '../helpers/lighttpd-pair.js'
import { describeWith } from '../helpers/requires.js'

/*
 * An import is never more open than the lighttpd that it replaces: whatever gets a 4xx there gets none here that is open, and a
 * difference in the other direction is told (exit code 3).
 */

let directory: string
let root: string
let backend: Server
let brokerPort = 0

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mqway-openness-'))
  root = join(directory, 'www')
  await makeRoot(root)
  await writeFile(join(directory, 'users'), `joe:$2y$05$${'a'.repeat(53)}\n`)
  // mqway opens the connection before it answers, and so does lighttpd.
  backend = createServer(socket => socket.on('error', () => {}).resume())
  await new Promise<void>(resolve => backend.listen(0, '127.0.0.1', resolve))
  const address = backend.address()
  brokerPort = typeof address === 'object' && address ? address.port : 0
})

afterAll(async () => {
  backend?.close()
  await rm(directory, { recursive: true, force: true })
})

const files = ['/', '/page.html', '/page.html~', '/x.php', '/private/x.html', '//private/x.html', '/%70rivate/x.html']
const tunnels = [
  '/mqtt',
  '/mqtt/a',
  '//mqtt',
  '/%6dqtt/%61',
  '/mqtt/%61%zz',
  '/x/../mqtt/a',
  '/mqtt/../b',
  '/mqtt%2fa',
  '/b',
  '//b',
  '/x/../b',
  '/c/a.ws',
  '/c/a.ws?mqtt',
  '/private/ws',
]
const hosts = [undefined, 'a.example', 'A.EXAMPLE', 'a.example.', 'a.example:80', 'a.example:8080', 'b.example']

/** Everything that is asked of both servers: its name, and the question. */
function* questions(): Generator<[string, (url: string) => Promise<number>]> {
  const statusOf = async (answer: Promise<string>): Promise<number> => Number((await answer).slice(0, 3))
  for (const path of files) yield [`GET ${path}`, url => statusOf(get(url, path))]
  for (const path of tunnels) yield [`upgrade ${path}`, url => upgradeStatus(url, path)]
  for (const host of hosts) {
    const headers: Record<string, string> = host === undefined ? {} : { host }
    for (const path of ['/mqtt', '/b'])
      yield [`upgrade ${path} at ${host}`, url => upgradeStatus(url, path, { headers })]
    yield [`GET /page.html at ${host}`, url => statusOf(get(url, '/page.html', { headers }))]
  }
  for (const localAddress of ['127.0.0.1', '127.0.0.2', '127.0.1.1']) {
    yield [`upgrade /mqtt from ${localAddress}`, url => upgradeStatus(url, '/mqtt', { localAddress })]
    yield [`upgrade /mqtt/a from ${localAddress}`, url => upgradeStatus(url, '/mqtt/a', { localAddress })]
    yield [`GET /page.html from ${localAddress}`, url => statusOf(get(url, '/page.html', { localAddress }))]
  }
  for (const origin of ['https://a.example', 'https://x.a.example', 'https://b.example', 'null']) {
    yield [`upgrade /mqtt of ${origin}`, url => upgradeStatus(url, '/mqtt', { headers: { origin } })]
  }
  const forwarded = { 'x-forwarded-for': '127.0.0.2', 'x-real-ip': '127.0.0.2' }
  yield ['upgrade /mqtt forwarded', url => upgradeStatus(url, '/mqtt', { headers: forwarded })]
  for (const headers of [{ 'user-agent': 'good' }, { cookie: 'a=b' }, { referer: 'http://a.example/' }]) {
    yield [`upgrade /mqtt with ${JSON.stringify(headers)}`, url => upgradeStatus(url, '/mqtt', { headers })]
  }
}

/** Spellings that mqway does not take, and need not: browsers send none of them. */
const isOdd = (name: string): boolean => /\/\/|\.\.|%zz|example\.$/.test(name)

const isOpen = (status: number): boolean => status < 400

/** What is open at mqway and closed at lighttpd; and the other way round. */
async function compare(there: string, here: string): Promise<{ opened: string[]; closed: string[] }> {
  const opened: string[] = []
  const closed: string[] = []
  for (const [name, ask] of questions()) {
    const [before, after] = await Promise.all([ask(there), ask(here)])
    const shown = `${name}: ${before} became ${after}`
    if (isOpen(after) && !isOpen(before)) opened.push(shown)
    if (isOpen(before) && !isOpen(after) && !isOdd(name)) closed.push(shown)
  }
  return { opened, closed }
}

const server = (more: string): string => `
server.document-root = "ROOT"
server.bind = "127.0.0.1"
server.port = PORT
server.modules = ( "mod_indexfile", "mod_access", "mod_auth", "mod_authn_file", "mod_setenv", "mod_redirect", "mod_rewrite", "mod_alias", "mod_extforward", "mod_cgi", "mod_wstunnel", "mod_staticfile" )
index-file.names = ( "index.html" )
mimetype.assign = ( ".html" => "text/html" )
wstunnel.frame-type = "binary"
${more}`
const to = '( ( "host" => "127.0.0.1", "port" => "BROKER" ) )'
const mqtt = `wstunnel.server = ( "/mqtt" => ${to} )\n`
const all = `wstunnel.server = ( "" => ${to} )`

async function pairOf(text: string): Promise<Pair> {
  return startPair(text, { directory, root, brokerPort })
}

const cases: readonly (readonly [string, string])[] = [
  ['names in upper case', `${mqtt}URL.Access-Deny = ( "~", ".php", "mqtt" )`],
  [
    'a variable in another case',
    `var.Secret = "/mqtt"\n${mqtt}$HTTP["url"] =^ var.secret { url.access-deny = ( "" ) }`,
  ],
  ['a host in upper case', `$HTTP["host"] == "A.example" { ${all} }`],
  ['a host with a port', `$HTTP["host"] == "a.example:8080" { ${all} }`],
  ['another host with a port', `$HTTP["host"] != "a.example:8080" { ${all} }`],
  ['a whole host', `$HTTP["host"] =~ "^a\\.example$" { ${all} }`],
  ['all hosts but one', `$HTTP["host"] !~ "^a\\.example" { ${all} }`],
  ['a denied host', `${mqtt}$HTTP["host"] == "a.example" { url.access-deny = ( "" ) }`],
  ['all denied hosts but one', `${mqtt}$HTTP["host"] != "A.example" { url.access-deny = ( "" ) }`],
  ['a path that is not', `$HTTP["url"] !~ "^/b" { ${all} }`],
  ['a path that is not equal', `$HTTP["url"] != "/b" { ${all} }`],
  ['a denied path below a tunnel', `${mqtt}$HTTP["url"] =~ "^/mqtt.*a" { url.access-deny = ( "" ) }`],
  ['a denied end', `${mqtt}url.access-deny = ( "a" )`],
  ['always true conditions', `$HTTP["url"] =~ "" { $HTTP["url"] =^ "" { $HTTP["url"] =$ "" { ${all} } } }`],
  ['never true conditions', `${mqtt}$HTTP["url"] =^ "mqtt" { ${all} }\n$HTTP["url"] == "" { ${all} }`],
  ['suffixes', `wstunnel.server = ( ".ws" => ${to}, "a" => ${to} )`],
  ['addresses', `$HTTP["remoteip"] == "127.0.0.0/24" { ${mqtt} } else $HTTP["url"] =^ "/b" { ${all} }`],
  [
    'a range and one of its addresses',
    `$HTTP["remoteip"] == "127.0.0.2" { ${mqtt} }\n$HTTP["remoteip"] == "127.0.0.0/8" { url.access-deny = ( "" ) }`,
  ],
  [
    'a range and a login',
    `$HTTP["remoteip"] == "127.0.0.2" { ${mqtt} }\nauth.backend = "htpasswd"\nauth.backend.htpasswd.userfile = "HERE/../users"\n$HTTP["remoteip"] == "127.0.0.0/8" { auth.require = ( "" => ( "method" => "basic", "realm" => "x", "require" => "valid-user" ) ) }`,
  ],
  [
    'two ranges',
    `${mqtt}$HTTP["remoteip"] != "127.0.0.0/24" { $HTTP["remoteip"] != "127.0.1.0/24" { url.access-deny = ( "" ) } }`,
  ],
  [
    'origins under a condition',
    `${mqtt}wstunnel.origins = ( "https://a.example", "a.example" )\n$HTTP["host"] == "b.example" { wstunnel.origins = () }`,
  ],
  [
    'origins of a range',
    `$HTTP["remoteip"] == "127.0.0.1" { ${mqtt} }\n$HTTP["remoteip"] == "127.0.0.0/8" { wstunnel.origins = ( "https://a.example" ) }`,
  ],
  [
    'a login for one user',
    `${mqtt}auth.backend = "htpasswd"\nauth.backend.htpasswd.userfile = "HERE/../users"\nauth.require = ( "/mqtt/a" => ( "method" => "basic", "realm" => "x", "require" => "user=joe" ) )`,
  ],
  [
    'a login with users by host',
    `${mqtt}auth.backend = "htpasswd"\nauth.backend.htpasswd.userfile = "HERE/../users"\n$HTTP["host"] == "b.example" { auth.backend.htpasswd.userfile = "/dev/null" }\nauth.require = ( "" => ( "method" => "basic", "realm" => "x", "require" => "valid-user" ) )`,
  ],
  ['other headers', `${mqtt}$HTTP["useragent"] !~ "good" { url.access-deny = ( "" ) }`],
  ['another spelling of a header', `${mqtt}$REQUEST_HEADER["Cookie"] !~ "a=b" { url.access-deny = ( "" ) }`],
  ['the host as a header', `${mqtt}$REQUEST_HEADER["Host"] != "a.example" { url.access-deny = ( "" ) }`],
  ['the query', `${mqtt}$HTTP["querystring"] != "key" { url.access-deny = ( "" ) }`],
  ['the method', `${mqtt}$HTTP["request-method"] == "GET" { url.access-deny = ( "" ) }`],
  [
    'a header that one proxy sets',
    `${mqtt}extforward.forwarder = ( "127.0.0.1" => "trust" )\nextforward.headers = ( "X-Real-IP" )\n$HTTP["remoteip"] != "127.0.0.2" { url.access-deny = ( "" ) }`,
  ],
  [
    'a proxy of some addresses',
    `${mqtt}$HTTP["host"] == "a.example" { extforward.forwarder = ( "127.0.0.1" => "trust" ) }\n$HTTP["remoteip"] != "127.0.0.1" { url.access-deny = ( "" ) }`,
  ],
  ['a socket by a regular expression', `${mqtt}$SERVER["socket"] =~ ":PORT" { url.access-deny = ( "" ) }`],
  [
    'a socket twice',
    `${mqtt}$SERVER["socket"] == "127.0.0.1:PORT" { url.access-deny = ( "" ) }\n$SERVER["socket"] == "localhost:PORT" { index-file.names = ( "index.html" ) }`,
  ],
  ['a socket that is not', `${mqtt}$SERVER["socket"] != "127.0.0.1:OTHER" { url.access-deny = ( "" ) }`],
  [
    'a list that another one replaces',
    `${mqtt}url.access-deny = ( "" )\n$HTTP["url"] =^ "/mqtt" { url.access-deny = () }`,
  ],
  ['what is allowed and denied', `${mqtt}url.access-allow = ( ".html", "mqtt" )\nurl.access-deny = ( ".html" )`],
  ['what is allowed at a host', `${mqtt}$HTTP["host"] == "a.example" { url.access-allow = ( ".html" ) }`],
  ['a redirect with an exception', `${mqtt}url.redirect = ( "^/page" => "", "" => "https://a.example/" )`],
  ['a rewrite', `${mqtt}url.rewrite-once = ( "^/mqtt$" => "/private/x.html" )`],
  ['an alias', `${mqtt}alias.url = ( "/private/" => "ROOT/dir/" )`],
  [
    'programs',
    `${mqtt}$HTTP["url"] =~ "^/private" { cgi.assign = ( "" => "" ) }\ncgi.assign = ( ".php" => "/bin/false" )`,
  ],
  ['files with no extension', `${mqtt}static-file.exclude-extensions = ( "" )`],
  ['a tunnel that is taken away', `${mqtt}$HTTP["url"] =^ "/mqtt/a" { wstunnel.server = () }`],
  ['a tunnel of a module that is not there', `${mqtt}server.modules := ( "mod_access", "mod_staticfile" )`],
  ['links', `${mqtt}server.follow-symlink = 0`],
  [
    'possessive and atomic expressions',
    `$HTTP["url"] =~ "^/(?>m++)qtt" { ${all} }\n$HTTP["url"] =~ "(?i)^/B$" { ${all} }`,
  ],
  ['classes that JavaScript lacks', `${mqtt}$HTTP["url"] =~ "^/mqtt/[[:alpha:]]" { url.access-deny = ( "" ) }`],
  ['else of an unknown condition', `$HTTP["language"] =~ "en" { url.access-deny = ( "" ) } else { ${all} }`],
]

/** Conditions and what stands under them, of which configurations are made by chance. */
const condition = fc.oneof(
  fc.tuple(
    fc.constantFrom('$HTTP["url"]'),
    fc.constantFrom('==', '!=', '=^', '=$', '=~', '!~'),
    fc.constantFrom('/mqtt', '/mqtt/a', '/b', 'a', '/', '^/mqtt', 'mqtt$', '^/(b|c)', '/a.*', '^/private'),
  ),
  fc.tuple(
    fc.constantFrom('$HTTP["host"]'),
    fc.constantFrom('==', '!=', '=~', '!~'),
    fc.constantFrom('a.example', 'b.example', 'a.example:8080', '^a', 'example$', 'A.example'),
  ),
  fc.tuple(
    fc.constantFrom('$HTTP["remoteip"]'),
    fc.constantFrom('==', '!='),
    fc.constantFrom('127.0.0.1', '127.0.0.0/24', '127.0.0.0/8', '127.0.1.1'),
  ),
  fc.tuple(fc.constantFrom('$HTTP["useragent"]', '$HTTP["cookie"]'), fc.constantFrom('=~', '!~'), fc.constant('b')),
  fc.tuple(fc.constant('$SERVER["socket"]'), fc.constantFrom('==', '!='), fc.constant('127.0.0.1:PORT')),
)

const directive = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(all, mqtt, `wstunnel.server = ( "/b" => ${to}, "a" => ${to} )`) },
  {
    weight: 4,
    arbitrary: fc.constantFrom('""', '"a"', '"~", ".php"', '"mqtt"', '').map(ends => `url.access-deny = ( ${ends} )`),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      'wstunnel.server = ( )',
      'url.access-allow = ( ".html", "t" )',
      'wstunnel.origins = ( "https://a.example", "a.example" )',
      'wstunnel.origins = ( )',
      'static-file.exclude-extensions = ( ".php" )',
      'url.redirect = ( "^/b" => "https://a.example/" )',
      'setenv.set-response-header = ( "Sec-WebSocket-Protocol" => "binary" )',
    ),
  },
)

const nameOf = (line: string): string => line.split(' ', 1)[0] ?? ''

const directives = fc.uniqueArray(directive, { maxLength: 3, selector: nameOf }).map(lines => lines.join('\n'))

const block = (body: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc
    .tuple(fc.uniqueArray(condition, { minLength: 1, maxLength: 2, selector: String }), fc.boolean(), body, body, body)
    .map(([conditions, hasElse, ...bodies]) => {
      const blocks = conditions.map(
        ([subject, operator, value], index) => `${subject} ${operator} "${value}" {\n${bodies[index]}\n}`,
      )
      return [...blocks, ...(hasElse ? [`{\n${bodies[2]}\n}`] : [])].join(' else ')
    })

const nested = fc.tuple(directives, fc.option(block(directives), { nil: '' })).map(parts => parts.join('\n'))

const configuration = fc
  .tuple(directives, fc.array(block(nested), { minLength: 1, maxLength: 3 }))
  .map(([own, blocks]) => `${own.includes('wstunnel.server') ? '' : mqtt}${own}\n${blocks.join('\n')}`)

const [firstSeed = 1, runs = 8] = (process.env['LIGHTTPD_CASES'] ?? '').split(',').filter(Boolean).map(Number)
const seeds = Array.from({ length: runs }, (_, index) => firstSeed + index)

async function expectNotMoreOpen(text: string): Promise<void> {
  const { lighttpd, mqway, needsDecision, yaml } = await pairOf(server(text))
  const { opened, closed } = await compare(lighttpd, mqway)
  if (!needsDecision) expect(closed, `${text}\n${yaml}`).toEqual([])
  expect(opened, `${text}\n${yaml}`).toEqual([])
}

describeWith(['lighttpd'], 'an import', () => {
  it.each(cases)('is no more open than lighttpd with %s', (_name, text) => expectNotMoreOpen(text))

  /** LIGHTTPD_CASES=1,500 tries 500 of them, from the first on. */
  it.each(seeds)('is no more open than lighttpd with what chance makes (%i)', async seed => {
    const [text = ''] = fc.sample(configuration, { seed, numRuns: 1 })
    await expectNotMoreOpen(text).catch(error => {
      // Chance also makes what lighttpd does not take.
      if (!/lighttpd ended: |there is no tunnel in it|is set already/.test(String(error))) throw error
    })
  })
})
