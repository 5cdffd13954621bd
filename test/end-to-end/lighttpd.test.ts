import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { handshake, mqttThrough } from '../helpers/handshake.js'
import { get, makeRoot, type Pair, startPair as startPairAt } from '../helpers/lighttpd-pair.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { describeWith } from '../helpers/requires.js'

const paths = [
  '/',
  '/page.html',
  '/page.html~',
  '/x.php',
  '/db.inc',
  '/%78.php',
  '//x.php',
  '/x%2ephp',
  '/dir',
  '/dir/',
  '/htm/',
  '/private/x.html',
  '//private/x.html',
  '/%70rivate/x.html',
  '/dir/../private/x.html',
  '/.well-known/acme-challenge/token',
  '/gone',
]

let directory: string
let mosquitto: Mosquitto
let root: string

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mqway-lighttpd-'))
  root = join(directory, 'www')
  await makeRoot(root)
  mosquitto = await startMosquitto()
})

afterAll(async () => {
  await mosquitto?.stop()
  await rm(directory, { recursive: true, force: true })
})

function startPair(text: string, files: Record<string, string> = {}): Promise<Pair> {
  return startPairAt(text, { directory, root, brokerPort: mosquitto.port }, files)
}

async function answersOf(url: string): Promise<Record<string, string>> {
  const answers: Record<string, string> = {}
  for (const path of paths) answers[path] = await get(url, path)
  return answers
}

/** Status and subprotocol of a handshake. */
async function upgradeOf(
  url: string,
  path: string,
  protocol: string,
  headers: Record<string, string> = {},
): Promise<string> {
  const { status, headers: answered } = await handshake(`${url.replace('http', 'ws')}${path}`, { protocol, headers })
  return status === 101 ? `101 ${answered['sec-websocket-protocol'] ?? ''}` : String(status)
}

const backend = '( ( "host" => "127.0.0.1", "port" => "BROKER" ) )'
const server = (more: string): string => `
server.document-root = "ROOT"
server.bind = "127.0.0.1"
server.port = PORT
server.modules = ( "mod_indexfile", "mod_access", "mod_setenv", "mod_redirect", "mod_wstunnel", "mod_staticfile" )
index-file.names = ( "index.html", "index.htm" )
mimetype.assign = ( ".html" => "text/html", ".htm" => "text/html" )
wstunnel.frame-type = "binary"
${more}`
const anywhere = `wstunnel.server = ( "/mqtt" => ${backend} )`

const needs = ['lighttpd', 'mosquitto']

describeWith(needs, 'beside the lighttpd that it replaces, mqway', () => {
  it('serves and refuses the same files', async () => {
    const pair = await startPair(
      server(`${anywhere}
url.access-deny = ( "~", ".inc" )
static-file.exclude-extensions = ( ".php" )
$HTTP["url"] =~ "^/private/" { url.access-deny = ( "" ) }`),
    )
    expect(await answersOf(pair.mqway)).toEqual(await answersOf(pair.lighttpd))
    const host = { headers: { host: 'www.example' } }
    expect(await get(pair.mqway, '/', host)).toBe(await get(pair.lighttpd, '/', host))
    expect(pair.needsDecision).toBe(false)
  })

  it.each([
    ['$HTTP["url"] =~ "^/mqtt"', ['/mqtt', '/mqttx', '/x/mqtt', '/']],
    ['$HTTP["url"] =^ "/mqtt"', ['/mqtt', '/mqttx', '/x']],
    ['$HTTP["url"] == "/mqtt"', ['/mqtt', '/mqtt/', '/mqttx']],
    ['$HTTP["url"] =~ "^/ws$"', ['/ws', '/ws/', '/wsx']],
    ['$HTTP["url"] =~ "^/chat-ws($|/)"', ['/chat-ws', '/chat-ws/a', '/chat-wsx']],
    ['$HTTP["url"] != "/x"', ['/mqtt', '/x']],
    ['$HTTP["url"] =~ "^/a" { } else $HTTP["url"] =~ "^/b"', ['/a', '/b', '/c']],
    ['$HTTP["host"] =~ "^a\\." { } else $HTTP["url"] =~ "^/b"', ['/a', '/b']],
  ])('has the tunnel of %s at the same paths', async (condition, tried) => {
    const pair = await startPair(server(`${condition} { wstunnel.server = ( "" => ${backend} ) }`))
    for (const path of tried) {
      const there = await upgradeOf(pair.lighttpd, path, 'binary')
      const here = await upgradeOf(pair.mqway, path, 'binary')
      expect([path, here.slice(0, 3) === '101']).toEqual([path, there.slice(0, 3) === '101'])
    }
    expect(pair.needsDecision).toBe(false)
  })

  it('answers the subprotocol that a header is set to', async () => {
    const header = 'setenv.set-response-header = ( "Sec-WebSocket-Protocol" => "mqtt" )'
    const pair = await startPair(
      server(`$HTTP["url"] =~ "^/mqtt" { wstunnel.server = ( "" => ${backend} )\n${header} }`),
    )
    expect(await upgradeOf(pair.mqway, '/mqtt', 'mqtt')).toBe(await upgradeOf(pair.lighttpd, '/mqtt', 'mqtt'))
    const client = await mqttThrough(`${pair.mqway.replace('http', 'ws')}/mqtt`)
    expect(client.connected).toBe(true)
  })

  it('lets clients in that offer only binary, and carries MQTT for them', async () => {
    const pair = await startPair(server(anywhere))
    expect(await upgradeOf(pair.mqway, '/mqtt', 'binary')).toBe(await upgradeOf(pair.lighttpd, '/mqtt', 'binary'))
    const client = await mqttThrough(`${pair.mqway.replace('http', 'ws')}/mqtt`, { protocol: 'binary' })
    expect(client.connected).toBe(true)
    expect(await upgradeOf(pair.mqway, '/mqtt', 'base64')).toBe('400')
  })

  it.each([
    ['capacitor://localhost', '101 mqtt'],
    ['file://', '101 mqtt'],
    ['null', '101 mqtt'],
    ['http://[::1]:8080', '101 mqtt'],
    ['https://evil.example', '403'],
  ])('lets in the origin %s where lighttpd does', async (origin, expected) => {
    const list = 'wstunnel.origins = ( "capacitor://localhost", "file://", "null", "http://[::1]:8080" )'
    const pair = await startPair(server(`${anywhere}\n${list}`))
    expect(await upgradeOf(pair.mqway, '/mqtt', 'mqtt', { origin })).toBe(expected)
    expect((await upgradeOf(pair.lighttpd, '/mqtt', 'mqtt', { origin })).slice(0, 3)).toBe(expected.slice(0, 3))
  })

  it('has each tunnel at its own port', async () => {
    const pair = await startPair(
      server(`$SERVER["socket"] == "127.0.0.1:OTHER" { wstunnel.server = ( "/b" => ${backend} ) }`),
    )
    for (const port of ['first', 'other'] as const) {
      const [there, here] = port === 'first' ? [pair.lighttpd, pair.mqway] : [pair.others.lighttpd, pair.others.mqway]
      expect((await upgradeOf(here, '/b', 'binary')).slice(0, 3) === '101').toBe(port === 'other')
      expect((await upgradeOf(there, '/b', 'binary')).slice(0, 3) === '101').toBe(port === 'other')
    }
    expect(pair.needsDecision).toBe(false)
  })

  it('reads what a shell would have printed', async () => {
    const pair = await startPair(server('include_shell "cat HERE/*.part"'), {
      'a.part': 'wstunnel.server = ( "/mqtt" => ( ( "host" => "127.0.0.1", "port" => "BROKER" ) ) )',
      'b.part': 'url.access-deny = ( ".html" )',
    })
    expect(await get(pair.mqway, '/page.html')).toBe(await get(pair.lighttpd, '/page.html'))
    expect(await upgradeOf(pair.mqway, '/mqtt', 'binary')).toBe('101 binary')
  })

  it.each([
    '$HTTP["remoteip"] != "192.168.0.0/16" { url.access-deny = ( "" ) }',
    '$HTTP["url"] =~ "^/mqtt" { $HTTP["remoteip"] != "192.168.0.0/16" { url.access-deny = ( "" ) } }',
    '$HTTP["useragent"] !~ "secret" { url.access-deny = ( "" ) }',
    'url.access-allow = ( ".html" )',
    '$HTTP["host"] != "a.example" { url.access-deny = ( "" ) }',
  ])('is no more open than lighttpd with %s', async protection => {
    const pair = await startPair(server(`${anywhere}\n${protection}`))
    expect((await upgradeOf(pair.lighttpd, '/mqtt', 'mqtt'))[0]).toBe('4')
    expect((await upgradeOf(pair.mqway, '/mqtt', 'mqtt'))[0]).toBe('4')
    const [there, here] = [await answersOf(pair.lighttpd), await answersOf(pair.mqway)]
    for (const path of paths) {
      if (there[path]?.startsWith('4')) expect([path, here[path]?.[0]]).toEqual([path, '4'])
    }
  })

  it('sends plain requests on to https', async () => {
    const pair = await startPair(
      server(
        `${anywhere}\n$HTTP["scheme"] == "http" { url.redirect = ( "" => "https://\${url.authority}\${url.path}\${qsa}" ) }`,
      ),
    )
    expect(await get(pair.mqway, '/page.html?x')).toBe(await get(pair.lighttpd, '/page.html?x'))
    expect((await upgradeOf(pair.mqway, '/mqtt', 'mqtt'))[0]).toBe('3')
  })
})
