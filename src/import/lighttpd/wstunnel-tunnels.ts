import { formatDuration } from '../../config/units.js'
import { type Test, urlTest, verdictOf } from './conditions.js'
import {
  anyOrigin,
  backends,
  brokerUrl,
  type Draft,
  listOf,
  pingInterval,
  protocolOf,
  settingFor,
  type TunnelBroker,
  type TunnelInput,
  warnOfUnknown,
} from './drafts.js'
import { type Entry, List, type Setting, textOf, textsOf } from './evaluate.js'
import { escapeRegex } from './patterns.js'
import type { Report } from './report.js'
import type { View, ViewScope } from './view.js'

/** The tunnels of mod_wstunnel: prefixes and suffixes; the first match wins, as in mqway. */
export function wstunnelTunnels(server: Setting, scope: ViewScope, view: View, report: Report): Draft[] {
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
    // lighttpd 1.4.69 responds with the subprotocol binary to every client, so that clients that offer only this one can connect.
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

/** The connect timeout of lighttpd: 8 s by default; at most mqway's 5 minutes. */
function limitOf(hosts: readonly List[]): string {
  const seconds = hosts.map(host => Number(textOf(host.get('connect-timeout')?.value) ?? 8))
  return formatDuration(
    Math.min(300, Math.max(1, ...seconds.map(value => (Number.isInteger(value) ? value : 8)))) * 1000,
  )
}

function balanceOf(setting: Setting | undefined, report: Report): Balance {
  const name = textOf(setting?.value)
  if (name === 'round-robin') return 'round-robin'
  if (setting && name !== 'least-connection' && name !== 'fair') {
    report.warn(setting.at, `wstunnel.balance = ${JSON.stringify(name)} is not carried over: least-connections is used`)
  }
  return 'least-connections'
}

/** Entries with a scheme, and `null`, are exact origins; `a.example` is any host below it. No entry: any origin. */
function wstunnelOrigins(setting: Setting | undefined): Partial<TunnelInput> {
  if (!setting) return anyOrigin
  const texts = textsOf(setting.value)
  if (texts.length === 0) return anyOrigin
  const origins = texts.map(text => {
    if (text === 'null' || /^https?:\/\/[a-z0-9.-]+(:\d+)?$/i.test(text)) return text
    if (text.includes('://')) return `/^${escapeRegex(text)}$/`
    return `/\\.${escapeRegex(text)}$/`
  })
  return { origins, requireOrigin: true }
}

/** One subprotocol (RFC 6455 §4.1): some configurations have lists, which mqway does not support. */
const isToken = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** mod_wstunnel sends no subprotocol itself; configurations add the header with mod_setenv. */
function subprotocolHeader(view: View, facts: readonly Test[], report: Report): Partial<TunnelInput> | undefined {
  let forced: string | undefined
  for (const name of ['setenv.add-response-header', 'setenv.set-response-header']) {
    const { setting: own } = settingFor(view, name, facts)
    for (const { scope, setting } of view.takeAll(name)) {
      const entries = setting.value instanceof List ? setting.value.entries : []
      for (const { key = '', value, at } of entries) {
        if (key.toLowerCase() !== 'sec-websocket-protocol') continue
        if (setting === own && isToken.test(textOf(value) ?? '')) forced = textOf(value)
        else if (verdictOf(scope.tests, facts) !== 'never')
          report.warn(at, `${name}: the header ${key} is not carried over`)
      }
    }
  }
  return forced === undefined ? undefined : { forceSubprotocol: forced }
}
