import { urlTest } from './conditions.js'
import {
  anyOrigin,
  backends,
  brokerUrl,
  type Draft,
  listOf,
  pingInterval,
  protocolOf,
  settingFor,
  type TunnelInput,
  warnOfUnknown,
} from './drafts.js'
import { type Entry, List, type Setting, textOf } from './evaluate.js'
import { anchor, escapeRegex } from './patterns.js'
import type { Report } from './report.js'
import type { View, ViewScope } from './view.js'

/**
 * The tunnels of mod_websocket, in reverse order: of its keys, which are regular expressions, the last match wins; in mqway the first.
 */
export function websocketTunnels(server: Setting, scope: ViewScope, view: View, report: Report): Draft[] {
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

/** Patterns for the start of the Origin header; with a list, clients without Origin are refused. */
function websocketOrigins(entry: Entry | undefined, name: string, report: Report): Partial<TunnelInput> {
  if (!(entry?.value instanceof List)) return anyOrigin
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
