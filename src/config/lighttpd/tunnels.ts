import { parseBrokerUrl } from '../forms.js'
import type { ConfigInput } from '../schema.js'
import { formatDuration, parseDuration } from '../units.js'
import { conditionText, conjunction, excluding, simplified, type Test, verdictOf } from './conditions.js'
import { type Entry, List, type Setting, textOf, textsOf } from './evaluate.js'
import { anchor, escapeRegex } from './patterns.js'
import type { Report } from './report.js'
import type { Position } from './tokens.js'
import type { View, ViewScope } from './view.js'

export type TunnelsInput = NonNullable<ConfigInput['tunnels']>
export type TunnelInput = TunnelsInput[number]
type TunnelBroker = NonNullable<TunnelInput['broker']>

/** A tunnel as it is at one socket. */
export interface Tunnel {
  readonly input: TunnelInput
  /** Everything that is true of a request that it takes. */
  readonly facts: readonly Test[]
  readonly at: Position
  /** The reason why it is left out. */
  readonly refusal?: string
}

const urlSubject = '$HTTP["url"]'
const hostSubject = '$HTTP["host"]'
const addressSubject = '$HTTP["remoteip"]'
const everybody = { origins: ['*'] }

/** The tests of one subject. */
export function testsOf(subject: 'url' | 'host' | 'remoteip', tests: readonly Test[]): Test[] {
  return tests.filter(test => test.subject === `$HTTP["${subject}"]`)
}

/** The tests of anything but URL, host and address, which mqway does not look at. */
export function otherTests(tests: readonly Test[]): Test[] {
  return tests.filter(({ subject }) => ![urlSubject, hostSubject, addressSubject].includes(subject))
}

/** A test of the path. */
export function urlTest(operator: Test['operator'], value: string): Test {
  return { subject: urlSubject, operator, value }
}

/**
 * All tunnels at one socket, in the order in which mqway tries them. In lighttpd, the last block that holds for a request counts: here it is
 * the first.
 */
export function readTunnels(view: View, report: Report): Tunnel[] {
  return [
    ...readModule(view, 'websocket.server', websocketTunnels, report),
    ...readModule(view, 'wstunnel.server', wstunnelTunnels, report),
  ]
}

/** A tunnel before the conditions of its block are made a part of it. */
interface Draft {
  /** The path as the key of the list says it. */
  readonly tests: readonly Test[]
  readonly input: Omit<TunnelInput, 'path' | 'pathPrefix' | 'pathSuffix' | 'pathPattern'>
  readonly at: Position
  readonly refusal?: string | undefined
}

type ReadDrafts = (setting: Setting, scope: ViewScope, view: View, report: Report) => Draft[]

function readModule(view: View, name: string, read: ReadDrafts, report: Report): Tunnel[] {
  const found = view.takeAll(name)
  const redirects = redirectsOf(view)
  return found
    .flatMap(({ scope, setting }, index) => {
      const later = [...redirects, ...found.slice(index + 1).map(other => ({ tests: other.scope.tests }))]
      return [read(setting, scope, view, report).flatMap(draft => place(draft, scope, later))]
    })
    .reverse()
    .flat()
}

/** Requests that never get to a tunnel. */
interface Exclusion {
  /** All of them hold for such a request. */
  readonly tests: readonly Test[]
  /** The reason to give where it is about all requests; without one, another tunnel has them. */
  readonly reason?: string
}

/** lighttpd redirects before it looks for a tunnel. */
function redirectsOf(view: View): Exclusion[] {
  return view.takeAll('url.redirect').flatMap(({ scope, setting: { value, at } }) => {
    const keys = value instanceof List ? value.entries.map(({ key = '' }) => key) : []
    const reason = `url.redirect in line ${at.line} leads its connections elsewhere`
    return keys.map(key => ({
      tests: [...scope.tests, ...(isAnyPath(key) ? [] : [simplified(urlTest('=~', key))])],
      reason,
    }))
  })
}

/** Whether every path matches a regular expression, by its usual forms. */
export function isAnyPath(expression: string): boolean {
  return /^(\^?\/?\(?\.\*\)?\$?|\^?\/?)$/.test(expression)
}

/** Joins a draft with the conditions of its block, and keeps it from requests that never get to it. */
function place(draft: Draft, scope: ViewScope, exclusions: readonly Exclusion[]): Tunnel[] {
  let facts = [...scope.tests, ...draft.tests]
  let { refusal } = draft
  for (const { tests, reason } of exclusions) {
    const verdict = verdictOf(tests, facts)
    if (verdict === 'never') continue
    if (verdict === 'always' && reason === undefined) return []
    const excluded = verdict === 'always' ? undefined : excluding(tests)
    if (excluded) facts = [...facts, excluded]
    else refusal ??= reason ?? `another block, under ${conditionText(tests)}, counts for a part of its connections`
  }
  const { input, at } = draft
  const match = matchOf(testsOf('url', facts))
  const hosts = hostsOf(testsOf('host', facts))
  const allow = addressesOf(testsOf('remoteip', facts))
  const others = otherTests(facts)
  if (match === undefined || hosts === undefined) refusal ??= 'JavaScript has no regular expression for its condition'
  if (allow === undefined) refusal ??= `mqway cannot say ${conditionText(testsOf('remoteip', facts))}`
  if (others.length > 0) refusal ??= `mqway does not look at ${conditionText(others)}`
  const placed = { ...(match ?? { pathPrefix: '/' }), ...hosts, ...allow, ...input }
  return [{ input: placed, facts, at, ...(refusal === undefined ? {} : { refusal }) }]
}

/** The path of a tunnel; `undefined` where JavaScript has no expression for it. */
function matchOf(tests: readonly Test[]): Partial<TunnelInput> | undefined {
  const needed = tests.filter(
    (test, index) => !tests.some((other, at) => at !== index && makesNeedless(other, at, test, index)),
  )
  const [only, ...more] = needed
  if (!only) return { pathPrefix: '/' }
  if (more.length === 0 && only.operator === '=^') return { pathPrefix: only.value }
  if (more.length === 0 && only.operator === '=$') return { pathSuffix: only.value }
  const pathPattern = conjunction(needed)
  return pathPattern === undefined ? undefined : { pathPattern }
}

/** Whether `test` says nothing that `other` does not say; of two that say the same, the later one goes. */
function makesNeedless(other: Test, at: number, test: Test, index: number): boolean {
  const isSame = conditionText([other]) === conditionText([test])
  return isSame ? at < index : verdictOf([test], [other]) === 'always'
}

function hostsOf(tests: readonly Test[]): Partial<TunnelInput> | undefined {
  if (tests.length === 0) return {}
  const [only] = tests
  if (tests.length === 1 && only?.operator === '==') return { hosts: [only.value] }
  const source = conjunction(tests)
  return source === undefined ? undefined : { hosts: [`/${source}/`] }
}

function addressesOf(tests: readonly Test[]): Partial<TunnelInput> | undefined {
  if (tests.length === 0) return {}
  const [only] = tests
  return tests.length === 1 && only?.operator === '==' ? { allow: [only.value] } : undefined
}

/** The setting of `name` for requests of which `facts` are true; `isSure` is false where another block may change it. */
function settingFor(
  view: View,
  name: string,
  facts: readonly Test[],
): { setting: Setting | undefined; isSure: boolean } {
  let setting: Setting | undefined
  let isSure = true
  for (const { scope, setting: own } of view.takeAll(name)) {
    const verdict = verdictOf(scope.tests, facts)
    if (verdict === 'sometimes') isSure = false
    if (verdict === 'always') [setting, isSure] = [own, true]
  }
  return { setting, isSure }
}

/**
 * The tunnels of mod_websocket. Its keys are regular expressions and the last match wins, so they come out in reverse: in mqway the first one wins.
 */
function websocketTunnels(server: Setting, scope: ViewScope, view: View, report: Report): Draft[] {
  const ping = pingInterval(settingFor(view, 'websocket.ping_interval', scope.tests).setting, report)
  const { setting: timeout } = settingFor(view, 'websocket.timeout', scope.tests)
  if (timeout) {
    report.note(
      timeout.at,
      'websocket.timeout is left out, as it cut off quiet clients: mqway ends a connection that leaves two pings unanswered, and the broker one that breaks its keep-alive',
    )
  }
  return listOf(server, report)
    .flatMap(entry => websocketTunnel(entry, ping, report))
    .reverse()
}

function websocketTunnel(entry: Entry, ping: Partial<TunnelInput>, report: Report): Draft[] {
  const name = `websocket.server "${entry.key ?? ''}"`
  const refuse = (reason: string): Draft[] => {
    report.warn(entry.at, `${name} is not carried over: ${reason}`)
    return []
  }
  const path = anchor(entry.key ?? '')
  if (!path) return refuse('JavaScript has no such regular expression')
  if ('prefix' in path && path.prefix !== '' && !path.prefix.startsWith('/')) {
    return refuse('it matches no path, as they all begin with /')
  }
  const options = backends(entry)
  const [first] = options
  if (!first) return refuse('it needs a list with host and port')
  if (options.length > 1) report.warn(entry.at, `${name}: only the first of its subprotocols is carried over`)
  const broker = brokerUrl(first, undefined)
  if (broker === undefined) return refuse('it needs host and port')
  const type = textOf(first.get('type')?.value)
  if (type === undefined || !/^bin/i.test(type)) {
    const said = type === undefined ? 'the default type text' : `the type ${type}`
    report.note(first.get('type')?.at ?? entry.at, `${name}: ${said} breaks MQTT; mqway sends binary frames`)
  }
  warnOfUnknown(first, ['host', 'port', 'proto', 'type', 'subproto', 'origins'], name, report)
  const isWebSocket = textOf(first.get('proto')?.value) === 'websocket'
  const subproto = textOf(first.get('subproto')?.value)
  const input = {
    broker,
    ...(subproto === undefined ? {} : { forceSubprotocol: subproto }),
    ...websocketOrigins(first.get('origins'), name, report),
    ...protocolOf([broker], [entry.key, subproto], { at: entry.at, name }, report),
    ...ping,
  }
  const test = 'prefix' in path ? urlTest('=^', path.prefix || '/') : urlTest('=~', path.source)
  const refusal = isWebSocket
    ? 'lighttpd passed WebSocket through, and mqway speaks MQTT to the broker: name the plain MQTT port of the same broker, usually 1883'
    : undefined
  return [{ tests: [test], input, at: entry.at, refusal }]
}

/** Patterns for the start of the Origin header; with a list, a client without one was refused. */
function websocketOrigins(entry: Entry | undefined, name: string, report: Report): Partial<TunnelInput> {
  if (!(entry?.value instanceof List)) return everybody
  const origins = entry.value.entries.flatMap(({ value, at }) => {
    const pattern = anchor(textOf(value) ?? '')
    if (pattern === undefined) {
      report.warn(
        at,
        `${name}: the origin "${textOf(value) ?? ''}" is left out: JavaScript has no such regular expression`,
      )
      return []
    }
    return 'prefix' in pattern ? [`/^${escapeRegex(pattern.prefix)}/`] : [`/${pattern.source}/`]
  })
  return { origins, requireOrigin: true }
}

/** The tunnels of mod_wstunnel: prefixes and suffixes, of which the first match wins, as in mqway. */
function wstunnelTunnels(server: Setting, scope: ViewScope, view: View, report: Report): Draft[] {
  return listOf(server, report).flatMap(entry => wstunnelTunnel(entry, scope, view, report))
}

type Balance = 'round-robin' | 'least-connections'

function wstunnelTunnel(entry: Entry, scope: ViewScope, view: View, report: Report): Draft[] {
  const name = `wstunnel.server "${entry.key ?? ''}"`
  const tests = keyTests(entry.key ?? '')
  const facts = [...scope.tests, ...tests]
  const frameType = settingFor(view, 'wstunnel.frame-type', facts).setting
  const isBinary = textOf(frameType?.value)?.toLowerCase() === 'binary'
  if (!isBinary) {
    const said = frameType ? 'this wstunnel.frame-type' : 'the default wstunnel.frame-type text'
    report.note((frameType ?? entry).at, `${said} breaks MQTT; mqway sends binary frames`)
  }
  const hosts = backends(entry)
  const urls = hosts.flatMap(host => brokerUrl(host, '80') ?? [])
  const [url, ...others] = urls
  if (url === undefined || urls.length < hosts.length) {
    report.warn(entry.at, `${name}: a host is not carried over: it needs host and port, or socket`)
  }
  if (url === undefined) return []
  for (const host of hosts) warnOfUnknown(host, ['host', 'port', 'socket', 'connect-timeout'], name, report)
  const connectTimeout = limitOf(hosts)
  const balance = balanceOf(settingFor(view, 'wstunnel.balance', facts).setting, report)
  const broker: TunnelBroker =
    others.length === 0 ? { url, connectTimeout } : { url: [url, ...others], balance, connectTimeout }
  const origins = settingFor(view, 'wstunnel.origins', facts)
  const forced = subprotocolHeader(view, facts, report)
  const input = {
    broker,
    // lighttpd 1.4.69 answers binary to everybody, so that clients which offer only that got in.
    ...(forced || !isBinary ? {} : { subprotocols: ['mqtt', 'mqttv3.1', 'binary'] }),
    ...forced,
    ...wstunnelOrigins(origins.setting),
    ...protocolOf(urls, [...facts.map(fact => fact.value), forced?.forceSubprotocol], { at: entry.at, name }, report),
    ...pingInterval(settingFor(view, 'wstunnel.ping-interval', facts).setting, report),
  }
  const refusal = origins.isSure ? undefined : 'a block changes wstunnel.origins for a part of its connections'
  return [{ tests, input, at: entry.at, refusal }]
}

/** Keys that begin with `/` are prefixes, others suffixes; the empty one matches every path. */
function keyTests(key: string): Test[] {
  if (key === '') return []
  return [urlTest(key.startsWith('/') ? '=^' : '=$', key)]
}

/** The same limit as lighttpd's: 8 s where nothing is said, and not beyond mqway's 5 minutes. */
function limitOf(hosts: readonly List[]): string {
  const seconds = hosts.map(host => Number(textOf(host.get('connect-timeout')?.value) ?? 8))
  return formatDuration(
    Math.min(300, Math.max(1, ...seconds.map(value => (Number.isInteger(value) ? value : 8)))) * 1000,
  )
}

/** Ports that brokers listen on: 1883 to 1889, 8883 to 8889, and those with a digit in front, as containers map them. */
const mqttPort = /^(?:\d?[18]88[3-9])$/
const mqttSocket = /mqtt|mosquitto|emqx|vernemq|hivemq|rabbit|nanomq|broker/i

/**
 * A backend that is no MQTT broker, by its port or its name, gets through where nobody insists on a CONNECT.
 *
 * @param hints the path of the tunnel and its subprotocol: those that name MQTT are believed
 */
function protocolOf(
  urls: readonly string[],
  hints: readonly (string | undefined)[],
  { at, name }: { readonly at: Position; readonly name: string },
  report: Report,
): Partial<TunnelInput> {
  const isNamed = hints.some(hint => hint !== undefined && /mqtt/i.test(hint))
  const isMqtt =
    isNamed ||
    urls.every(url => {
      const address = parseBrokerUrl(url)
      return address?.protocol === 'unix' ? mqttSocket.test(address.host) : mqttPort.test(String(address?.port))
    })
  if (isMqtt) return {}
  report.warn(
    at,
    `${name}: this does not look like an MQTT broker (port 1883 or the like); mqway carries other protocols with inspectConnect: false, in binary frames alone`,
  )
  return { inspectConnect: false }
}

function balanceOf(setting: Setting | undefined, report: Report): Balance {
  const name = textOf(setting?.value)
  if (name === 'round-robin') return 'round-robin'
  if (setting && name !== 'least-connection' && name !== 'fair') {
    report.warn(setting.at, `wstunnel.balance = ${JSON.stringify(name)} is not carried over: least-connections is used`)
  }
  return 'least-connections'
}

/** An entry with a scheme, and `null`, is that origin exactly; `a.example` is whatever ends in `.a.example`. None at all: everybody. */
function wstunnelOrigins(setting: Setting | undefined): Partial<TunnelInput> {
  if (!setting) return everybody
  const texts = textsOf(setting.value)
  if (texts.length === 0) return everybody
  const origins = texts.map(text => {
    if (text === 'null' || /^https?:\/\/[a-z0-9.-]+(:\d+)?$/i.test(text)) return text
    if (text.includes('://')) return `/^${escapeRegex(text)}$/`
    return `/\\.${escapeRegex(text)}$/`
  })
  return { origins, requireOrigin: true }
}

/** mod_wstunnel sends no subprotocol itself; configurations add the header with mod_setenv. */
function subprotocolHeader(view: View, facts: readonly Test[], report: Report): Partial<TunnelInput> | undefined {
  let forced: string | undefined
  for (const name of ['setenv.add-response-header', 'setenv.set-response-header']) {
    const { setting } = settingFor(view, name, facts)
    if (!(setting?.value instanceof List)) continue
    for (const { key = '', value, at } of setting.value.entries) {
      if (key.toLowerCase() === 'sec-websocket-protocol') forced = textOf(value)
      else report.warn(at, `${name}: the header ${key} is not carried over`)
    }
  }
  return forced === undefined ? undefined : { forceSubprotocol: forced }
}

function listOf(setting: Setting, report: Report): readonly Entry[] {
  if (setting.value instanceof List) return setting.value.entries
  report.warn(setting.at, `${setting.name} is not carried over: it should be a list of "/path" => ( … )`)
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

function warnOfUnknown(options: List, known: readonly string[], name: string, report: Report): void {
  for (const { key, at } of options.entries) {
    if (key !== undefined && !known.includes(key)) report.warn(at, `${name}: ${key} is not carried over`)
  }
}

/** Seconds; 0 is off. Without the setting, mqway's default holds, which finds out about clients that are gone. */
function pingInterval(setting: Setting | undefined, report: Report): Partial<TunnelInput> {
  if (!setting) return {}
  const text = textOf(setting.value) ?? ''
  if (Number(text) === 0 && text !== '') return { pingInterval: 'off' }
  if (parseDuration(`${text}s`) !== undefined) return { pingInterval: `${text}s` }
  report.warn(setting.at, `${setting.name} is not carried over: it should be a number of seconds`)
  return {}
}
