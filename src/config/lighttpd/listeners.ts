import type { ConfigInput } from '../schema.js'
import type { Directives, Warn } from './directives.js'
import type { Evaluated } from './evaluate.js'
import type { Position } from './tokens.js'

/** One socket that lighttpd listened on. */
interface Socket {
  readonly host: string
  readonly port: number | string
  readonly tls: boolean
  readonly cert: string | undefined
  readonly key: string | undefined
  readonly at: Position
}

type ListenerOptions = Pick<ConfigInput, 'host' | 'anonymous' | 'http' | 'https'>

const start = (file: string): Position => ({ file, line: 1, column: 1 })

/**
 * What lighttpd listened on, as mqway's two listeners.
 *
 * @param blocks the directives of each `$SERVER["socket"]` block, by its address
 */
export function translateListeners(
  evaluated: Evaluated,
  global: Directives,
  blocks: ReadonlyMap<string, Directives>,
  fileName: string,
  warn: Warn,
): ListenerOptions {
  const sockets = readSockets(evaluated, global, blocks, fileName, warn)
  const plain = sockets.filter(socket => !socket.tls)
  const secure = sockets.filter(socket => socket.tls)
  const http = merge(plain, warn)
  const https = merge(secure, warn)
  const hosts = [http?.hosts, https?.hosts].filter(list => list !== undefined)
  const common = hosts.every(list => String(list) === String(hosts[0]))
  const own = (list: readonly string[] | undefined) => (common || list === undefined ? {} : { host: hostOption(list) })
  return {
    ...(common ? { host: hostOption(hosts[0] ?? []) } : {}),
    // lighttpd let everybody in, so the file has to say so.
    ...(hosts.flat().every(isLoopback) ? {} : { anonymous: true }),
    http: http ? { port: http.port, ...own(http.hosts) } : { port: 'off' },
    https: https ? { port: https.port, ...own(https.hosts), ...https.files } : { port: 'off' },
  }
}

function hostOption(hosts: readonly string[]): string | string[] {
  const [first = '127.0.0.1', ...others] = hosts
  return others.length === 0 ? first : [first, ...others]
}

function isLoopback(host: string): boolean {
  return /^(127\.[\d.]+|::1|localhost)$/.test(host)
}

function readSockets(
  evaluated: Evaluated,
  global: Directives,
  blocks: ReadonlyMap<string, Directives>,
  fileName: string,
  warn: Warn,
): Socket[] {
  const tls = global.takeSwitch('ssl.engine') ?? false
  const pemfile = global.takeText('ssl.pemfile')
  const privkey = global.takeText('ssl.privkey')
  const anyHost = global.takeSwitch('server.use-ipv6') ? '::' : '0.0.0.0'
  const bind = global.takeText('server.bind') ?? anyHost
  const portSetting = global.take('server.port')
  const port = Number(global.takeText('server.port') ?? (tls ? 443 : 80))
  const mainAt = portSetting?.at ?? start(fileName)
  const main = {
    ...(bind.startsWith('/') ? address(bind, anyHost) : { host: hostOf(bind, anyHost), port }),
    at: mainAt,
  }

  const found = new Map<string, Socket>()
  const add = (place: { host: string; port: number | string; at: Position }, own: Directives | undefined) => {
    const cert = own?.takeText('ssl.pemfile') ?? pemfile
    const key = own?.takeText('ssl.privkey') ?? (cert === pemfile ? privkey : undefined)
    const socket = { ...place, tls: own?.takeSwitch('ssl.engine') ?? tls, cert, key }
    if (!isPort(socket.port)) warn(socket.at, 'this is not a port from 1 to 65535: it is not listened on')
    else found.set(`${socket.host} ${socket.port}`, socket)
  }
  add(main, undefined)
  for (const [text, { at }] of evaluated.sockets) add({ ...address(text, anyHost), at }, blocks.get(text))
  return [...found.values()]
}

function hostOf(text: string, anyHost: string): string {
  return text === '' || text === '*' ? anyHost : text.replace(/^\[|\]$/g, '')
}

function isPort(port: number | string): boolean {
  return typeof port === 'string' || (Number.isInteger(port) && port >= 1 && port <= 65_535)
}

/** The address of a block: `:443`, `0.0.0.0:443`, `[::]:443`, or the file of a Unix socket. */
function address(text: string, anyHost: string): { host: string; port: number | string } {
  const path = /^(?:unix:)?(\/.*)$/.exec(text)?.[1]
  if (path !== undefined) return { host: '127.0.0.1', port: `unix:${path}` }
  const colon = text.lastIndexOf(':')
  const port = text.slice(colon + 1)
  if (!/^\d+$/.test(port)) return { host: hostOf(text, anyHost), port: 80 }
  return { host: hostOf(text.slice(0, Math.max(0, colon)), anyHost), port: Number(port) }
}

interface Merged {
  readonly port: number | string
  readonly hosts: readonly string[]
  readonly files: { cert?: string; key?: string }
}

/** mqway has one plain and one TLS port, each on any number of addresses: the first port is taken. */
function merge(sockets: readonly Socket[], warn: Warn): Merged | undefined {
  const [first, ...others] = sockets
  if (!first) return undefined
  const hosts = [first.host]
  for (const other of others) {
    if (other.port !== first.port) {
      warn(other.at, `port ${other.port} is not carried over: mqway has one plain and one TLS port`)
    } else if (first.tls && other.cert !== first.cert) {
      warn(other.at, `${other.host} is not listened on: mqway has one certificate, that of ${first.host}`)
    } else hosts.push(other.host)
  }
  if (!first.tls) return { port: first.port, hosts, files: {} }
  const { cert } = first
  if (cert === undefined) {
    warn(first.at, 'TLS without ssl.pemfile: mqway makes a development certificate, which browsers warn of')
    return { port: first.port, hosts, files: {} }
  }
  // lighttpd reads the private key from the same file when nothing else is said.
  return { port: first.port, hosts, files: { cert, key: first.key ?? cert } }
}
