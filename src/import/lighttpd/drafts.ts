import { parseBrokerUrl } from '../../config/forms.js'
import type { ConfigInput } from '../../config/schema.js'
import { parseDuration } from '../../config/units.js'
import { type Test, verdictOf } from './conditions.js'
import { type Entry, List, type Setting, textOf } from './evaluate.js'
import type { Report } from './report.js'
import type { Position } from './tokens.js'
import type { View } from './view.js'

export type TunnelsInput = NonNullable<ConfigInput['tunnels']>
export type TunnelInput = TunnelsInput[number]
export type TunnelBroker = NonNullable<TunnelInput['broker']>

/** A tunnel without the conditions of its block. */
export interface Draft {
  /** The condition of its path, from the key of the list. */
  readonly tests: readonly Test[]
  readonly input: Omit<TunnelInput, 'path' | 'pathPrefix' | 'pathSuffix' | 'pathPattern'>
  readonly at: Position
  readonly refusal?: string | undefined
}

export const anyOrigin = { origins: ['*'] }

/** The setting of `name` for requests with these `facts`; `isSure` is false if another block may replace it. */
export function settingFor(
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

/** Usual ports of brokers: 1883 to 1889, 8883 to 8889, and these with a leading digit, as containers map them. */
const mqttPort = /^(?:\d?[18]88[3-9])$/
const mqttSocket = /mqtt|mosquitto|emqx|vernemq|hivemq|rabbit|nanomq|broker/i

/**
 * Returns `inspectConnect: false` for a backend that does not look like an MQTT broker by its port or name.
 *
 * @param hints the path of the tunnel and its subprotocol; one that contains `mqtt` identifies a broker
 */
export function protocolOf(
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

export function listOf(setting: Setting, report: Report): readonly Entry[] {
  if (setting.value instanceof List) return setting.value.entries
  report.warn(setting.at, `${setting.name} is not carried over: it should be a list of "/path" => ( … )`)
  return []
}

/** The mappings with `host` and `port` of a path: one, or a list of them, with or without labels. */
export function backends(entry: Entry): List[] {
  if (!(entry.value instanceof List)) return []
  const nested = entry.value.entries.flatMap(({ value }) => (value instanceof List ? [value] : []))
  const { value } = entry
  return value.get('host') || value.get('socket') || nested.length === 0 ? [value] : nested
}

export function brokerUrl(options: List, defaultPort: string | undefined): string | undefined {
  const host = textOf(options.get('socket')?.value) ?? textOf(options.get('host')?.value) ?? ''
  if (host.startsWith('/')) return `unix:${host}`
  const port = textOf(options.get('port')?.value) ?? defaultPort
  const url = `mqtt://${host.includes(':') ? `[${host}]` : host}:${port}`
  return port !== undefined && parseBrokerUrl(url) ? url : undefined
}

export function warnOfUnknown(options: List, known: readonly string[], name: string, report: Report): void {
  for (const { key, at } of options.entries) {
    if (key !== undefined && !known.includes(key)) report.warn(at, `${name}: ${key} is not carried over`)
  }
}

/** Converts seconds, where 0 is off. Without the setting, mqway's default applies, which detects lost clients. */
export function pingInterval(setting: Setting | undefined, report: Report): Partial<TunnelInput> {
  if (!setting) return {}
  const text = textOf(setting.value) ?? ''
  if (Number(text) === 0 && text !== '') return { pingInterval: 'off' }
  if (parseDuration(`${text}s`) !== undefined) return { pingInterval: `${text}s` }
  report.warn(setting.at, `${setting.name} is not carried over: it should be a number of seconds`)
  return {}
}
