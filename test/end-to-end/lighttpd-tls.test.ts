import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { makeRoot, type Pair, startPair } from '../helpers/lighttpd-pair.js'
import { describeWith } from '../helpers/requires.js'
import { writeCertificate } from '../server/rig.js'

let directory: string
let root: string
let backend: Server
let brokerPort = 0

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mqway-tls-'))
  root = join(directory, 'www')
  await makeRoot(root)
  for (const name of ['a', 'b', 'c', 'd']) {
    const { pem } = await writeCertificate(directory, { name: `${name}.example`, files: name })
    await writeFile(join(directory, `${name}.pem`), pem.key + pem.cert)
  }
  backend = createServer(socket => socket.on('error', () => {}).resume())
  await new Promise<void>(resolve => backend.listen(0, '127.0.0.1', resolve))
  const address = backend.address()
  brokerPort = typeof address === 'object' && address ? address.port : 0
})

afterAll(async () => {
  backend?.close()
  await rm(directory, { recursive: true, force: true })
})

/** A lighttpd with TLS at its second port, and the mqway that is imported from it. */
function startTls(lines: string): Promise<Pair> {
  const text = `
server.document-root = "ROOT"
server.bind = "127.0.0.1"
server.port = PORT
server.modules = ( "mod_access", "mod_wstunnel", "mod_openssl", "mod_staticfile" )
mimetype.assign = ( ".html" => "text/html" )
url.access-deny = ( "~", ".inc" )
static-file.exclude-extensions = ( ".php" )
wstunnel.frame-type = "binary"
wstunnel.server = ( "/mqtt" => ( ( "host" => "127.0.0.1", "port" => "BROKER" ) ) )
${lines.replaceAll('CERTS', directory)}`
  return startPair(text, { directory, root, brokerPort })
}

const names = [
  '',
  'a.example',
  'b.example',
  'B.example',
  'x.b.example',
  'c.example',
  'x.y.c.example',
  'd.example',
  'e.example',
]

/** The name in the certificate that is shown to those who ask for `servername`. */
function certificateFor(url: string, servername: string): Promise<string> {
  const { hostname: host, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host, port: Number(port), servername, rejectUnauthorized: false }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN))
      socket.destroy()
    })
    socket.on('error', reject)
  })
}

function statusOf(url: string, path: string, servername: string): Promise<number> {
  const { hostname, port } = new URL(url)
  const host = servername === '' ? {} : { host: servername }
  const isTunnel = path === '/mqtt'
  const upgrade = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'sec-websocket-protocol': 'binary',
  }
  const headers = { ...host, ...(isTunnel ? upgrade : {}) }
  return new Promise((resolve, reject) => {
    const asked = request({ hostname, port, path, servername, headers, rejectUnauthorized: false, agent: false })
    asked.on('upgrade', ({ statusCode = 0 }, socket) => {
      socket.destroy()
      resolve(statusCode)
    })
    asked.on('response', response => {
      response.resume().on('end', () => resolve(response.statusCode ?? 0))
    })
    asked.on('error', reject).end()
  })
}

async function answersOf(url: string): Promise<Record<string, (string | number)[]>> {
  const answers: Record<string, (string | number)[]> = {}
  for (const name of names) {
    const statuses: number[] = []
    for (const path of ['/page.html', '/page.html~', '/x.php', '/gone', '/mqtt']) {
      statuses.push(await statusOf(url, path, name))
    }
    answers[name] = [await certificateFor(url, name), ...statuses]
  }
  return answers
}

describeWith(['lighttpd', 'lighttpd-mod-openssl'], 'beside a lighttpd with certificates by host, mqway', () => {
  it.each([
    [
      'in the block of a socket',
      `$SERVER["socket"] == "127.0.0.1:OTHER" {
         ssl.engine = "enable"
         ssl.pemfile = "CERTS/a.pem"
         $HTTP["host"] == "b.example" { ssl.pemfile = "CERTS/b.pem" }
         $HTTP["host"] =~ "(^|\\.)c\\.example$" { ssl.pemfile = "CERTS/c.crt" ssl.privkey = "CERTS/c.key" }
       }`,
      ['a', 'b', 'c'],
    ],
    [
      'in blocks of their own',
      `$SERVER["socket"] == "127.0.0.1:OTHER" { ssl.engine = "enable" ssl.pemfile = "CERTS/a.crt" ssl.privkey = "CERTS/a.key" }
       $HTTP["host"] =~ "example$" { ssl.pemfile = "CERTS/d.pem" }
       $HTTP["host"] == "b.example" { ssl.pemfile = "CERTS/b.pem" } else $HTTP["host"] =$ ".c.example" { ssl.pemfile = "CERTS/c.pem" }`,
      ['a', 'b', 'c', 'd'],
    ],
  ])('shows the same certificate for each name, and answers the same: %s', async (_where, lines, shown) => {
    const { others, needsDecision, yaml } = await startTls(lines)
    const expected = await answersOf(others.lighttpd)
    expect(new Set(Object.values(expected).map(([subject]) => subject))).toEqual(
      new Set(shown.map(name => `${name}.example`)),
    )
    expect(await answersOf(others.mqway), yaml).toEqual(expected)
    expect(needsDecision).toBe(false)
  })

  it('says so where it cannot', async () => {
    const { needsDecision } = await startTls(
      `$SERVER["socket"] == "127.0.0.1:OTHER" { ssl.engine = "enable" ssl.pemfile = "CERTS/a.pem" }
       $HTTP["remoteip"] == "127.0.0.2" { ssl.pemfile = "CERTS/b.pem" }`,
    )
    expect(needsDecision).toBe(true)
  })
})
