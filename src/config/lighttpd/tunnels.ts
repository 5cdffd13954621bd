import { parseBrokerUrl } from '../forms.js'
import type { ConfigInput } from '../schema.js'
import { formatDuration, parseDuration } from '../units.js'
import { textOf, type Warn } from './directives.js'
import { type Entry, List, type Setting } from './evaluate.js'
import { anchor, escapeRegex } from './patterns.js'
import type { Position } from './tokens.js'

export type TunnelInput = NonNullable<ConfigInput['tunnels']>[number]
type TunnelBroker = NonNullable<TunnelInput['broker']>

/** A tunnel, and where lighttpd's configuration says it. */
export interface Translated {
  readonly tunnel: TunnelInput
  readonly at: Position
}

/** Where the directives of one module come from: a block first, then the whole server. */
export type Lookup = (name: string) => Setting | undefined

const everybody = { origins: ['*'] }

/**
 * The tunnels of mod_websocket.
 *
 * Its keys are regular expressions and the last match wins, so they come out in reverse: in mqway the first one wins.
 */
export function translateWebsocket(take: Lookup, warn: Warn): Translated[] {
  const server = take('websocket.server')
  if (!server) return []
  const ping = pingInterval(take('websocket.ping_interval'), warn)
  const timeout = take('websocket.timeout')
  if (timeout) {
    const advice =
      'mqway ends a connection that leaves two pings unanswered, and the broker one that breaks its keep-alive'
    warn(timeout.at, `websocket.timeout is not carried over, as it cut off quiet clients: ${advice}`)
  }
  return listOf(server, warn)
    .flatMap(entry => websocketTunnel(entry, ping, warn))
    .reverse()
}

function websocketTunnel(entry: Entry, ping: Partial<TunnelInput>, warn: Warn): Translated[] {
  const name = `websocket.server "${entry.key ?? ''}"`
  const path = anchor(entry.key ?? '')
  if (!path) {
    warn(entry.at, `${name} is not carried over: JavaScript has no such regular expression`)
    return []
  }
  if ('prefix' in path && path.prefix !== '' && !path.prefix.startsWith('/')) {
    warn(entry.at, `${name} is not carried over: it matches no path, as they all begin with /`)
    return []
  }
  const options = backends(entry)
  const [first] = options
  if (!first) {
    warn(entry.at, `${name} is not carried over: it needs a list with host and port`)
    return []
  }
  if (options.length > 1) {
    warn(entry.at, `${name}: only the first of its subprotocols is carried over`)
  }
  const broker = brokerUrl(first, undefined)
  if (broker === undefined) {
    warn(entry.at, `${name} is not carried over: it needs host and port`)
    return []
  }
  warnOfType(first, name, entry.at, warn)
  warnOfUnknown(first, ['host', 'port', 'proto', 'type', 'subproto', 'origins'], name, warn)
  const subproto = textOf(first.get('subproto')?.value)
  const tunnel = {
    ...('prefix' in path ? { pathPrefix: path.prefix || '/' } : { pathPattern: path.source }),
    broker,
    ...(subproto === undefined ? {} : { forceSubprotocol: subproto }),
    ...websocketOrigins(first.get('origins'), name, warn),
    ...ping,
  }
  return [{ tunnel, at: entry.at }]
}

function warnOfType(options: List, name: string, at: Position, warn: Warn): void {
  const type = options.get('type')
  const text = textOf(type?.value)
  if (text === undefined || !/^bin/i.test(text)) {
    const said = text === undefined ? 'the default type text' : `the type ${text}`
    warn(type?.at ?? at, `${name}: ${said} breaks MQTT; mqway sends binary frames`)
  }
  const proto = options.get('proto')
  if (textOf(proto?.value) === 'websocket') {
    const advice = 'change this tunnel’s broker to the plain MQTT port of the same broker, usually 1883'
    warn(proto?.at ?? at, `${name}: lighttpd passed WebSocket through, mqway speaks MQTT to the broker: ${advice}`)
  }
}

/** Patterns for the start of the Origin header; with a list, a client without one was refused. */
function websocketOrigins(entry: Entry | undefined, name: string, warn: Warn): Partial<TunnelInput> {
  if (!(entry?.value instanceof List)) return everybody
  const origins = entry.value.entries.flatMap(({ value, at }) => {
    const pattern = anchor(textOf(value) ?? '')
    if (pattern === undefined) {
      warn(at, `${name}: the origin "${textOf(value) ?? ''}" is left out: JavaScript has no such regular expression`)
      return []
    }
    return 'prefix' in pattern ? [`/^${escapeRegex(pattern.prefix)}/`] : [`/${pattern.source}/`]
  })
  return { origins, requireOrigin: true }
}

/**
 * The tunnels of mod_wstunnel: prefixes and suffixes, of which the first match wins, as in mqway.
 */
export function translateWstunnel(take: Lookup, warn: Warn): Translated[] {
  const server = take('wstunnel.server')
  if (!server) return []
  const frameType = take('wstunnel.frame-type')
  if (textOf(frameType?.value)?.toLowerCase() !== 'binary') {
    const said = frameType ? 'this wstunnel.frame-type' : 'the default wstunnel.frame-type text'
    warn((frameType ?? server).at, `${said} breaks MQTT; mqway sends binary frames`)
  }
  const balance = balanceOf(take('wstunnel.balance'), warn)
  const common = {
    ...wstunnelOrigins(take('wstunnel.origins')),
    ...pingInterval(take('wstunnel.ping-interval'), warn),
    ...subprotocolHeader(take, warn),
  }
  return listOf(server, warn).flatMap(entry => wstunnelTunnel(entry, balance, common, warn))
}

type Balance = 'round-robin' | 'least-connections'

function wstunnelTunnel(entry: Entry, balance: Balance, common: Partial<TunnelInput>, warn: Warn): Translated[] {
  const name = `wstunnel.server "${entry.key ?? ''}"`
  const hosts = backends(entry)
  const urls = hosts.flatMap(host => brokerUrl(host, '80') ?? [])
  const [url, ...others] = urls
  if (url === undefined || urls.length < hosts.length) {
    warn(entry.at, `${name}: a host is not carried over: it needs host and port, or socket`)
  }
  if (url === undefined) return []
  for (const host of hosts) warnOfUnknown(host, ['host', 'port', 'socket', 'connect-timeout'], name, warn)
  const connectTimeout = limitOf(hosts)
  const broker: TunnelBroker =
    others.length === 0 ? { url, connectTimeout } : { url: [url, ...others], balance, connectTimeout }
  return [{ tunnel: { ...wstunnelPath(entry.key ?? ''), broker, ...common }, at: entry.at }]
}

/** The same limit as lighttpd's: 8 s where nothing is said, and not beyond mqway's 5 minutes. */
function limitOf(hosts: readonly List[]): string {
  const seconds = hosts.map(host => Number(textOf(host.get('connect-timeout')?.value) ?? 8))
  return formatDuration(
    Math.min(300, Math.max(1, ...seconds.map(value => (Number.isInteger(value) ? value : 8)))) * 1000,
  )
}

function wstunnelPath(key: string): Partial<TunnelInput> {
  // The empty suffix matches every path.
  if (key === '') return { pathPrefix: '/' }
  return key.startsWith('/') ? { pathPrefix: key } : { pathSuffix: key }
}

function balanceOf(setting: Setting | undefined, warn: Warn): Balance {
  const name = textOf(setting?.value)
  if (name === 'round-robin') return 'round-robin'
  if (setting && name !== 'least-connection' && name !== 'fair') {
    warn(setting.at, `wstunnel.balance = ${JSON.stringify(name)} is not carried over: least-connections is used`)
  }
  return 'least-connections'
}

/** `https://a.example` is that origin; `a.example` is whatever ends in `.a.example`. None at all: everybody. */
function wstunnelOrigins(setting: Setting | undefined): Partial<TunnelInput> {
  if (!setting) return everybody
  const { value } = setting
  const texts = value instanceof List ? value.entries.flatMap(entry => textOf(entry.value) ?? []) : [String(value)]
  if (texts.length === 0) return everybody
  const origins = texts.map(text => {
    if (/^https?:\/\/[a-z0-9.-]+(:\d+)?$/i.test(text)) return text
    return `/\\.${escapeRegex(text)}$/`
  })
  return { origins, requireOrigin: true }
}

/** mod_wstunnel sends no subprotocol itself; configurations add the header with mod_setenv. */
function subprotocolHeader(take: Lookup, warn: Warn): Partial<TunnelInput> {
  let forced: string | undefined
  for (const name of ['setenv.add-response-header', 'setenv.set-response-header']) {
    const setting = take(name)
    if (!(setting?.value instanceof List)) continue
    for (const { key = '', value, at } of setting.value.entries) {
      if (key.toLowerCase() === 'sec-websocket-protocol') forced = textOf(value)
      else warn(at, `${name}: the header ${key} is not carried over`)
    }
  }
  return forced === undefined ? {} : { forceSubprotocol: forced }
}

function listOf(setting: Setting, warn: Warn): readonly Entry[] {
  if (setting.value instanceof List) return setting.value.entries
  warn(setting.at, `${setting.name} is not carried over: it should be a list of "/path" => ( … )`)
  return []
}

/** The mappings with `host` and `port` behind a path: one, or a list of them, with or without labels. */
function backends(entry: Entry): List[] {
  if (!(entry.value instanceof List)) return []
  const nested = entry.value.entries.flatMap(({ value }) => (value instanceof List ? [value] : []))
  const { value } = entry
  return value.get('host') || value.get('socket') || nested.length === 0 ? [value] : nested
}

function brokerUrl(options: List, defaultPort: string | undefined): string | undefined {
  const host = textOf(options.get('socket')?.value) ?? textOf(options.get('host')?.value) ?? ''
  if (host.startsWith('/')) return `unix:${host}`
  const port = textOf(options.get('port')?.value) ?? defaultPort
  const url = `mqtt://${host.includes(':') ? `[${host}]` : host}:${port}`
  return port !== undefined && parseBrokerUrl(url) ? url : undefined
}

function warnOfUnknown(options: List, known: readonly string[], name: string, warn: Warn): void {
  for (const { key, at } of options.entries) {
    if (key !== undefined && !known.includes(key)) warn(at, `${name}: ${key} is not carried over`)
  }
}

/** Seconds; 0 is off. What was not said stays mqway's default, which finds out about clients that are gone. */
function pingInterval(setting: Setting | undefined, warn: Warn): Partial<TunnelInput> {
  if (!setting) return {}
  const text = textOf(setting.value) ?? ''
  if (Number(text) === 0 && text !== '') return { pingInterval: 'off' }
  if (parseDuration(`${text}s`) !== undefined) return { pingInterval: `${text}s` }
  warn(setting.at, `${setting.name} is not carried over: it should be a number of seconds`)
  return {}
}
