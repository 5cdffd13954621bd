import { isDeepStrictEqual } from 'node:util'
import type { ConfigInput } from '../../config/schema.js'
import type { Evaluated, Setting } from './evaluate.js'
import { List, textOf } from './evaluate.js'
import { matchFacts } from './matches.js'
import type { Report } from './report.js'
import type { Position } from './tokens.js'
import { socketAddresses, View } from './view.js'

/** One socket that lighttpd listened on. */
export interface Socket {
  readonly host: string
  readonly port: number | string
  readonly tls: boolean
  readonly files: Pick<NonNullable<ConfigInput['https']>, 'cert' | 'key' | 'certificates'>
  readonly at: Position
  /** The configuration of this socket. */
  readonly view: View
}

/**
 * The sockets that lighttpd listened on: the server's own, and one for each block `$SERVER["socket"] == "…"`.
 *
 * @param taken collects the translated settings
 */
export function readSockets(evaluated: Evaluated, fileName: string, taken: Set<Setting>, report: Report): Socket[] {
  const nowhere = { isAt: () => false, tls: undefined, hasDefaultPort: false }
  const own = new View(evaluated, nowhere, taken)
  const anyHost = own.takeSwitch('server.use-ipv6') ? '::' : '0.0.0.0'
  const bind = own.takeText('server.bind') ?? anyHost
  const portSetting = own.take('server.port')
  const port = Number(textOf(portSetting?.value) ?? (own.takeSwitch('ssl.engine') ? 443 : 80))
  const main = bind.startsWith('/') ? addressOf(bind, anyHost) : { host: hostOf(bind, anyHost), port }

  const found = new Map<string, Socket>()
  const nameOf = ({ host, port }: Address): string => `${host === 'localhost' ? '127.0.0.1' : host} ${port}`
  const add = (place: Address, at: Position): void => {
    if (!isPort(place.port)) {
      report.warn(at, 'this is not a port from 1 to 65535: it is not listened on')
      return
    }
    const facts = {
      isAt: (address: string) => nameOf(addressOf(address, anyHost)) === nameOf(place),
      hasDefaultPort: false,
    }
    const tls = new View(evaluated, { ...facts, tls: undefined }, taken).takeSwitch('ssl.engine') ?? false
    const hasDefaultPort = place.port === (tls ? 443 : 80)
    const view = new View(evaluated, { ...facts, tls, hasDefaultPort }, taken)
    found.set(nameOf(place), { ...place, tls, files: tls ? certificateOf(view) : {}, at, view })
  }
  const start = { file: fileName, line: 1, column: 1 }
  add(main, portSetting?.at ?? start)
  for (const { address, at } of socketAddresses(evaluated)) add(addressOf(address, anyHost), at)
  const sockets = [...found.values()]
  if (sockets.every(({ host }) => host === '::') && own.takeText('server.set-v6only') !== 'disable') {
    report.warn(
      portSetting?.at ?? start,
      'mqway takes connections over IPv4 at this address, too, which lighttpd did not',
    )
  }
  return sockets
}

interface Address {
  readonly host: string
  readonly port: number | string
}

/** By default, lighttpd reads the private key from the same file. */
function certificateOf(view: View): Socket['files'] {
  const cert = view.takeText('ssl.pemfile')
  const privkey = view.takeText('ssl.privkey')
  const certificates = namedCertificates(view)
  return {
    ...(cert === undefined ? {} : { cert, key: privkey ?? cert }),
    ...(certificates.length === 0 ? {} : { certificates }),
  }
}

/**
 * The certificates of hosts. When lighttpd selects one, it knows only the requested name (SNI); of two matching ones, it uses the later.
 */
function namedCertificates(view: View): NonNullable<Socket['files']['certificates']> {
  return view.scopes
    .flatMap(scope => {
      const isAboutHost = scope.tests.length > 0 && scope.tests.every(({ subject }) => subject === '$HTTP["host"]')
      if (!isAboutHost || !scope.settings.has('ssl.pemfile')) return []
      const { input, refusal } = matchFacts(scope.tests, true)
      const cert = refusal === undefined ? view.takeTextIn(scope, 'ssl.pemfile') : undefined
      if (cert === undefined || input.hosts === undefined) return []
      const key = view.takeTextIn(scope, 'ssl.privkey') ?? cert
      const chain = view.takeTextIn(scope, 'ssl.ca-file')
      return [{ hosts: input.hosts, cert, key, ...(chain === undefined ? {} : { chain }) }]
    })
    .reverse()
}

function hostOf(text: string, anyHost: string): string {
  return text === '' || text === '*' ? anyHost : text.replace(/^\[|\]$/g, '')
}

function isPort(port: number | string): boolean {
  return typeof port === 'string' || (Number.isInteger(port) && port >= 1 && port <= 65_535)
}

/** The address of a block: `:443`, `0.0.0.0:443`, `[::]:443`, or the file of a Unix socket. */
function addressOf(text: string, anyHost: string): Address {
  const path = /^(?:unix:)?(\/.*)$/.exec(text)?.[1]
  if (path !== undefined) return { host: '127.0.0.1', port: `unix:${path}` }
  const colon = text.lastIndexOf(':')
  const port = text.slice(colon + 1)
  if (!/^\d+$/.test(port) || (text.startsWith('[') && text.endsWith(']')))
    return { host: hostOf(text, anyHost), port: 80 }
  return { host: hostOf(text.slice(0, Math.max(0, colon)), anyHost), port: Number(port) }
}

/** The sockets that mqway can listen on as well, and its options for them. */
export interface Listening {
  readonly sockets: readonly Socket[]
  readonly options: Pick<ConfigInput, 'host' | 'http' | 'https'>
}

/**
 * Selects the sockets for mqway's two listeners. A listener has any number of addresses and ports, and listens on every port at every
 * address. Sockets that would open a further port, or need another certificate, are left out; those with tunnels have priority.
 *
 * @param hasTunnels whether a socket has tunnels
 */
export function chooseListeners(
  sockets: readonly Socket[],
  hasTunnels: (socket: Socket) => boolean,
  report: Report,
): Listening {
  const ordered = [...sockets.filter(hasTunnels), ...sockets.filter(socket => !hasTunnels(socket))]
  const plain = combine(
    ordered.filter(({ tls }) => !tls),
    report,
  )
  const secure = combine(
    ordered.filter(({ tls }) => tls),
    report,
  )
  const chosen = new Set([...plain, ...secure])
  const common = new Set([...chosen].map(({ host }) => host))
  const inOrder = (list: readonly Socket[]) => sockets.filter(socket => list.includes(socket))
  const hostsOf = (list: readonly Socket[]) => [...new Set(inOrder(list).map(({ host }) => host))]
  const isCommon = [plain, secure].every(list => list.length === 0 || hostsOf(list).length === common.size)
  const own = (list: readonly Socket[]) => (isCommon ? {} : { host: oneOrMany(hostsOf(list)) })
  const ports = (list: readonly Socket[]) => oneOrMany([...new Set(inOrder(list).map(({ port }) => port))])
  return {
    sockets: sockets.filter(socket => chosen.has(socket)),
    options: {
      ...(isCommon ? { host: oneOrMany(hostsOf([...chosen])) } : {}),
      http: plain.length > 0 ? { port: ports(plain), ...own(plain) } : { port: 'off' },
      https: secure.length > 0 ? { port: ports(secure), ...own(secure), ...secure[0]?.files } : { port: 'off' },
    },
  }
}

function oneOrMany<T>(list: readonly T[]): T | T[] {
  const [first] = list
  return list.length === 1 && first !== undefined ? first : [...list]
}

/** Selects sockets that are all combinations of their addresses and ports, with the same certificates; earlier ones have priority. */
function combine(sockets: readonly Socket[], report: Report): Socket[] {
  const all = largestProduct(sockets)
  const [first] = all
  const chosen = first ? all.filter(({ files }) => isDeepStrictEqual(files, first.files)) : []
  for (const socket of sockets) {
    if (chosen.includes(socket)) continue
    const name = typeof socket.port === 'string' ? socket.port : `${socket.host}:${socket.port}`
    const reason = all.includes(socket)
      ? `mqway has the same certificates at all ports, those of ${first?.host}:${first?.port}`
      : 'mqway would listen on this port at addresses where lighttpd did not'
    report.warn(socket.at, `${name} is not listened on: ${reason}`)
  }
  if (first?.tls && first.files.cert === undefined) {
    report.warn(first.at, 'TLS without ssl.pemfile: mqway makes a development certificate, which browsers warn of')
  }
  return chosen
}

function largestProduct(sockets: readonly Socket[]): Socket[] {
  if (isProduct(sockets)) return [...sockets]
  const [first] = sockets
  const sameHost = sockets.filter(({ host }) => host === first?.host)
  const samePort = sockets.filter(({ port }) => port === first?.port)
  return sameHost.length >= samePort.length ? sameHost : samePort
}

function isProduct(sockets: readonly Socket[]): boolean {
  // Unix sockets have no address.
  const tcp = sockets.filter(({ port }) => typeof port === 'number')
  const hosts = new Set(tcp.map(({ host }) => host))
  const ports = new Set(tcp.map(({ port }) => port))
  return hosts.size * ports.size === tcp.length
}

/** Whether all sockets are on loopback addresses. */
export function isForLoopback(sockets: readonly Socket[]): boolean {
  return sockets.every(({ host }) => /^(127\.[\d.]+|::1|localhost)$/.test(host))
}

/** The oldest TLS version of `ssl.openssl.ssl-conf-cmd` as `https.minVersion`; warns about other commands. */
export function minVersionOf(view: View, report: Report): 'TLSv1.2' | 'TLSv1.3' | undefined {
  const setting = view.take('ssl.openssl.ssl-conf-cmd')
  let version: 'TLSv1.2' | 'TLSv1.3' | undefined
  if (!(setting?.value instanceof List)) return undefined
  for (const { key = '', value, at } of setting.value.entries) {
    const text = textOf(value) ?? ''
    if (key === 'MinProtocol') version = text === 'TLSv1.3' ? 'TLSv1.3' : 'TLSv1.2'
    else if (key === 'Protocol' && !/TLSv1\.2/.test(text) && /TLSv1\.3/.test(text)) version = 'TLSv1.3'
    else if (key === 'Options') report.note(at, `ssl.openssl.ssl-conf-cmd: ${key} is left out: mqway has OpenSSL's own`)
    else report.warn(at, `ssl.openssl.ssl-conf-cmd: ${key} = ${JSON.stringify(text)} is not carried over`)
  }
  return version
}
