import type { ConfigInput } from '../../config/schema.js'
import { accessLog, compression, headers } from '../../config/web.js'
import { conditionText } from './conditions.js'
import { type Entry, List, type Setting, textOf, textsOf } from './evaluate.js'
import type { Socket } from './listeners.js'
import { matchFacts } from './matches.js'
import type { Modules } from './modules.js'
import type { Report } from './report.js'
import type { View, ViewScope } from './view.js'

type HeaderRules = NonNullable<ConfigInput['headers']>
type Responses = Pick<ConfigInput, 'headers' | 'compression' | 'accessLog'>

/** A setting with the conditions that it stands under. */
interface Found {
  readonly view: View
  readonly scope: ViewScope
  readonly setting: Setting
}

/** Response headers, compression and the access log of the sockets that are listened on. */
export function readResponses(sockets: readonly Socket[], modules: Modules, report: Report): Responses {
  const reading = new Reading(sockets, modules, report)
  const rules = [...reading.headers(), ...reading.expiries()]
  return {
    ...(rules.length > 0 && { headers: rules }),
    ...reading.compression(),
    ...reading.accessLog(),
  }
}

class Reading {
  readonly #sockets: readonly Socket[]
  readonly #modules: Modules
  readonly #report: Report

  constructor(sockets: readonly Socket[], modules: Modules, report: Report) {
    this.#sockets = sockets
    this.#modules = modules
    this.#report = report
  }

  /** `setenv.add-response-header` and `setenv.set-response-header`. */
  headers(): HeaderRules {
    const names = ['setenv.add-response-header', 'setenv.set-response-header']
    return names.flatMap(name => {
      const all = this.#all(name, 'mod_setenv')
      this.#warnOfReplaced(all)
      return all.flatMap(found => this.#headerRules(found))
    })
  }

  #headerRules(found: Found): HeaderRules {
    const { name, value } = found.setting
    const entries = value instanceof List ? value.entries : []
    const kept = entries.flatMap(({ key = '', value: text, at }): [string, string][] => {
      // A tunnel's own option.
      if (key.toLowerCase() === 'sec-websocket-protocol') return []
      const set = { [key]: textOf(text) ?? '' }
      const { error } = headers.safeParse([{ set }])
      if (error === undefined) return Object.entries(set)
      this.#report.warn(at, `${name}: the header ${key} is not carried over: ${error.issues[0]?.message ?? ''}`)
      return []
    })
    if (kept.length === 0) return []
    for (const [key] of kept) {
      if (!isForFiles.test(key)) continue
      this.#report.note(found.setting.at, `${name}: mqway sends ${key} with files alone, not with errors and its API`)
    }
    return this.#rule(found, Object.fromEntries(kept))
  }

  /** `expire.url`: prefixes of paths with times such as `access plus 7 days`. */
  expiries(): HeaderRules {
    return this.#all('expire.url', 'mod_expire').flatMap(found => {
      const entries = found.setting.value instanceof List ? found.setting.value.entries : []
      return entries.flatMap((entry): HeaderRules => {
        const rule = expiryOf(entry)
        if (rule && found.scope.tests.length === 0) return this.#rule(found, rule.set, { pathPrefix: rule.pathPrefix })
        this.#report.warn(
          entry.at,
          `expire.url: ${JSON.stringify(entry.key ?? '')} is not carried over: mqway knows prefixes with "access plus …", without conditions`,
        )
        return []
      })
    })
  }

  /** `deflate.*`, and `compress.*` of earlier versions. */
  compression(): Responses {
    const types = this.#one('deflate.mimetypes', 'mod_deflate') ?? this.#one('compress.filetype', 'mod_compress')
    const encodings =
      this.#one('deflate.allowed-encodings', 'mod_deflate') ?? this.#one('compress.allowed-encodings', 'mod_compress')
    const size = this.#one('deflate.min-compress-size', 'mod_deflate')
    for (const name of unneeded) {
      const found = this.#one(name, name.startsWith('deflate') ? 'mod_deflate' : 'mod_compress')
      if (found)
        this.#report.note(found.at, `${name} is left out: mqway compresses a file once, and keeps it in memory`)
    }
    if (types === undefined) return {}
    const bytes = Number(size && textOf(size.value))
    const names = encodings && this.#encodingsOf(encodings)
    const input = {
      types: textsOf(types.value).map(type => (type === '' ? '*' : type.replace(/\/$/, '/*'))),
      ...(names && names.length > 0 && { encodings: names }),
      ...(bytes >= 64 && { threshold: `${bytes}B` }),
    }
    if (compression.safeParse(input).success) return { compression: input }
    this.#report.note(
      types.at,
      `${types.name} is left out: mqway compresses texts, scripts and other types that become smaller`,
    )
    return {}
  }

  #encodingsOf({ name, value, at }: Setting): ('br' | 'zstd' | 'gzip')[] {
    const given = textsOf(value).map(text => text.toLowerCase().replace('x-gzip', 'gzip'))
    const known = new Map([
      ['br', 'br'],
      ['brotli', 'br'],
      ['gzip', 'gzip'],
      ['zstd', 'zstd'],
    ] as const)
    const kept = given.flatMap(text => [...known].flatMap(([own, coding]) => (own === text ? [coding] : [])))
    const lost = given.filter(text => !kept.some(coding => coding === text) && text !== 'brotli')
    if (lost.length > 0) this.#report.note(at, `${name}: mqway has no ${lost.join(', ')}`)
    return [...new Set(kept)]
  }

  accessLog(): Responses {
    const name = this.#one('accesslog.filename', 'mod_accesslog')
    const format = this.#one('accesslog.format', 'mod_accesslog')
    const syslog = this.#one('accesslog.use-syslog', 'mod_accesslog')
    if (syslog)
      this.#report.note(syslog.at, 'accesslog.use-syslog is left out: mqway writes to a file or standard output')
    if (name === undefined) return {}
    const file = textOf(name.value) ?? ''
    if (file.startsWith('|')) {
      this.#report.warn(name.at, 'accesslog.filename is not carried over: mqway starts no program; use file: stdout')
      return {}
    }
    const input = { file: file === '/dev/stdout' ? 'stdout' : file, ...this.#formatOf(format) }
    if (!accessLog.safeParse(input).success) return {}
    this.#report.note(
      name.at,
      `accesslog.filename: mqway has to be allowed to write ${file}, and redacts secrets in queries`,
    )
    return { accessLog: input }
  }

  #formatOf(setting: Setting | undefined): { format?: 'common' | 'json' } {
    if (setting === undefined) return {}
    const text = textOf(setting.value) ?? ''
    if (/^%h \S+ %u %t "%r" %>?s %b$/.test(text)) return { format: 'common' }
    if (/^%h \S+ %u %t "%r" %>?s %b "%\{Referer\}i" "%\{User-Agent\}i"$/i.test(text)) return {}
    const format = text.startsWith('{') ? 'json' : 'combined'
    this.#report.warn(
      setting.at,
      `accesslog.format is not carried over: mqway has common, combined and json, and writes ${format}`,
    )
    return format === 'json' ? { format } : {}
  }

  /** The settings of this name at all sockets, each once; none without their module. */
  #all(name: string, module: string): Found[] {
    const all = this.#sockets.flatMap(({ view }) => view.takeAll(name).map(found => ({ ...found, view })))
    const isFirst = ({ setting }: Found, index: number): boolean =>
      all.findIndex(other => other.setting === setting) === index
    return this.#modules.has(module) ? all.filter(isFirst) : []
  }

  /** The unconditional setting; another one under a condition is reported. */
  #one(name: string, module: string): Setting | undefined {
    const all = this.#all(name, module)
    for (const { scope, setting } of all) {
      if (scope.tests.length === 0) continue
      this.#report.note(
        setting.at,
        `${name} is left out: it stands under ${conditionText(scope.tests)}, and mqway has one for all`,
      )
    }
    return all.findLast(({ scope }) => scope.tests.length === 0)?.setting
  }

  #rule({ view, scope, setting }: Found, set: Record<string, string>, path: { pathPrefix?: string } = {}): HeaderRules {
    const { input, refusal } = matchFacts(scope.tests, view.hasDefaultPort)
    const { allow, pathPrefix, ...conditions } = input
    const reason =
      refusal ?? (allow && `it holds under ${conditionText(scope.tests)}, and mqway sends headers to all addresses`)
    if (reason !== undefined) {
      this.#report.warn(setting.at, `${setting.name} is not carried over: ${reason}`)
      return []
    }
    const names = Object.keys(set)
    const isEverywhere = scope.isEverywhere || names.every(name => name.toLowerCase() === 'strict-transport-security')
    if (!isEverywhere && this.#sockets.length > 1)
      this.#report.warn(setting.at, `${setting.name}: mqway sends ${names.join(', ')} on every port, not only there`)
    const prefix = pathPrefix === undefined || pathPrefix === '/' ? {} : { pathPrefix }
    return [{ ...conditions, ...prefix, ...path, set }]
  }

  /** In lighttpd, the list of the last condition that holds replaces those before it. */
  #warnOfReplaced(all: readonly Found[]): void {
    const namesOf = ({ value }: Setting): string[] =>
      value instanceof List ? value.entries.map(({ key = '' }) => key.toLowerCase()) : []
    for (const [index, { setting }] of all.entries()) {
      if (namesOf(setting).every(name => name === 'sec-websocket-protocol')) continue
      const earlier = all.slice(0, index).flatMap(other => namesOf(other.setting))
      if (earlier.every(name => namesOf(setting).includes(name) || name === 'sec-websocket-protocol')) continue
      this.#report.warn(
        setting.at,
        `${setting.name}: in lighttpd this list replaces the one before it; mqway sends the headers of both`,
      )
    }
  }
}

/** Headers that mqway sends with files alone. */
const isForFiles = /^(?:access-control-.*|cache-control|content-disposition|content-language|expires|pragma)$/i

/** Directives of compression without a counterpart. */
const unneeded = [
  'deflate.cache-dir',
  'deflate.max-compress-size',
  'deflate.compression-level',
  'deflate.params',
  'deflate.max-loadavg',
  'deflate.output-buffer-size',
  'deflate.work-block-size',
  'compress.cache-dir',
  'compress.max-filesize',
  'compress.max-loadavg',
] as const

/** Seconds of the units of `expire.url`. */
const units = { second: 1, minute: 60, hour: 3600, day: 86_400, week: 604_800, month: 2_592_000, year: 31_536_000 }

function expiryOf({ key, value }: Entry): { pathPrefix: string; set: Record<string, string> } | undefined {
  const text = textOf(value) ?? ''
  const [, amounts] = /^access(?: plus)?((?: \d+ (?:second|minute|hour|day|week|month|year)s?)+)$/.exec(text) ?? []
  if (amounts === undefined || key === undefined || !/^(?:\/.*)?$/.test(key)) return undefined
  let seconds = 0
  for (const [, amount, unit] of amounts.matchAll(/(\d+) ([a-z]+?)s?(?= |$)/g)) {
    seconds += Number(amount) * (units[unit as keyof typeof units] ?? 0)
  }
  return { pathPrefix: key === '' ? '/' : key, set: { 'Cache-Control': `max-age=${seconds}` } }
}
