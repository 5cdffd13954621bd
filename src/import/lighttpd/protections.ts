import type { ConfigInput } from '../../config/schema.js'
import { conditionText, conjunction, type Test, testsOf, urlTest, verdictOf } from './conditions.js'
import { List, type Setting, textsOf } from './evaluate.js'
import { type Change, Identities } from './identities.js'
import type { Socket } from './listeners.js'
import type { Report } from './report.js'
import { refused, type Tunnel } from './tunnels.js'
import { isEnabled, type View, type ViewScope } from './view.js'

type AccessInput = NonNullable<ConfigInput['access']>

/** Access restrictions as options of mqway. */
export interface Protections {
  /** `deny`: refused paths. */
  readonly deny: readonly string[]
  /** `limits.allow`: the addresses that may connect; `undefined` for all. */
  readonly allow: readonly string[] | undefined
  readonly access: AccessInput | undefined
  /** The reason why the public directory is left out; `undefined` if it is not. */
  readonly filesRefusal: string | undefined
  /** The tunnels of each socket with their restrictions; those that are left out have a reason. */
  readonly tunnels: ReadonlyMap<Socket, readonly Tunnel[]>
}

/** Directives with restrictions that mqway cannot express. */
const unknownProtections =
  /^(magnet\.attract|secdownload\.|trigger-b4-dl\.|evasive\.|extforward\.hap-|geoip\.|maxminddb\.|auth\.extern)/

/** Handlers of paths or suffixes; their files are programs, whose source must not be served. */
const handlers = [
  'cgi.assign',
  'fastcgi.server',
  'fastcgi.map-extensions',
  'scgi.server',
  'scgi.map-extensions',
  'uwsgi.server',
  'ajp13.server',
  'proxy.server',
  'sockproxy.server',
  'alias.url',
] as const

/** Directives with suffixes of paths that are not served. */
const denials = ['url.access-deny', 'static-file.exclude-extensions', 'ssi.extension'] as const

/** Directives that map paths to files: without them, other files would become readable. */
const rewriting = /^(url\.rewrite|simple-vhost\.|evhost\.|vhostdb\.|userdir\.|webdav\.)/

/** Reads the restrictions of all imported sockets; paths with a restriction that mqway cannot express are refused. */
export function readProtections(tunnels: ReadonlyMap<Socket, readonly Tunnel[]>, report: Report): Protections {
  const reading = new Reading(report)
  const kept = new Map([...tunnels].map(([socket, own]) => [socket, reading.socket(socket, own)]))
  return { ...reading.result(), tunnels: kept }
}

class Reading {
  readonly #report: Report
  readonly #deny = new Set<string>()
  readonly #identities: Identities
  #allow: string | undefined
  #filesRefusal: string | undefined
  /** Changes the tunnels of the socket that is being read. */
  #change: Change = () => {}

  constructor(report: Report) {
    this.#report = report
    this.#identities = new Identities(report, {
      closeFiles: reason => this.#closeFiles(reason),
      denyPaths: (tests, setting) => this.#denyPaths(tests, setting),
    })
  }

  result(): Omit<Protections, 'tunnels'> {
    return {
      deny: [...this.#deny],
      allow: this.#allow === undefined ? undefined : [this.#allow],
      access: this.#identities.access,
      filesRefusal: this.#filesRefusal,
    }
  }

  socket({ view, tls }: Socket, tunnels: readonly Tunnel[]): Tunnel[] {
    let kept = [...tunnels]
    const change: Change = alter => {
      kept = kept.map(alter)
    }
    this.#change = change
    for (const name of denials) {
      warnOfReplaced(view, name, this.#report)
      for (const { scope, setting } of view.takeAll(name)) this.#denied(scope, setting)
    }
    warnOfReplaced(view, 'url.access-allow', this.#report)
    const allowed = view.takeAll('url.access-allow').at(-1)
    if (allowed && view.takeAll('url.access-deny').length > 0) {
      const message = 'url.access-allow: lighttpd served these, also where url.access-deny refuses them; mqway does not'
      this.#report.warn(allowed.setting.at, message)
    }
    for (const { scope, setting } of view.takeAll('url.access-allow')) this.#allowed(scope, setting)
    for (const name of handlers) {
      for (const { scope, setting } of view.takeAll(name)) this.#handled(scope, setting)
    }
    this.#identities.readLogins(view, tunnels, change)
    if (tls) this.#identities.readCertificates(view, change)
    this.#unknown(view)
    return kept
  }

  #closeFiles(reason: string): void {
    this.#filesRefusal ??= reason
  }

  /** `url.access-deny`: refused suffixes of paths; the empty one refuses all. */
  #denied(scope: ViewScope, setting: Setting): void {
    const isAboutAccess = setting.name === 'url.access-deny'
    const ends = textsOf(setting.value)
    if (ends.includes('') && !isAboutAccess) {
      this.#closeFiles(`${setting.name} in line ${setting.at.line} serves no file at all`)
      return
    }
    if (ends.includes('')) {
      this.#allDenied(scope, setting)
      return
    }
    const tests = testsOf('url', scope.tests)
    if (tests.length < scope.tests.length) this.#warnOfEverybody(scope, setting)
    for (const end of ends) this.#denyPaths([...tests, urlTest('=$', end)], setting)
  }

  #warnOfEverybody({ tests }: ViewScope, { name, at }: Setting): void {
    const message = `${name}: mqway refuses these paths to everybody, not only under ${conditionText(tests)}`
    this.#report.warn(at, message)
  }

  #denyPaths(tests: readonly Test[], { name, at }: Pick<Setting, 'name' | 'at'>): void {
    const [only] = tests
    const source = conjunction(tests)
    if (tests.length === 1 && only?.operator === '=$' && !/^\/.*\/$/.test(only.value)) this.#deny.add(only.value)
    else if (source !== undefined) this.#deny.add(`/${source}/`)
    else {
      const reason = `${name} in line ${at.line} may refuse it: mqway cannot say ${conditionText(tests)}`
      this.#change(tunnel => (verdictOf(tests, tunnel.facts) === 'never' ? tunnel : refused(tunnel, reason)))
      this.#closeFiles(`${name} in line ${at.line}: JavaScript has no regular expression for its condition`)
      this.#report.warn(
        at,
        `${name} is not carried over: JavaScript has no regular expression for ${conditionText(tests)}`,
      )
    }
  }

  /** `url.access-deny = ( "" )`: everything is refused where the conditions hold. */
  #allDenied(scope: ViewScope, { name, at }: Setting): void {
    const [urls, addresses, names] = (['url', 'remoteip', 'host'] as const).map(subject =>
      testsOf(subject, scope.tests),
    )
    const isOnly = (...tests: (Test[] | undefined)[]): boolean => tests.flat().length === scope.tests.length
    if (urls && urls.length > 0 && isOnly(urls)) {
      this.#denyPaths(urls, { name, at })
      return
    }
    const range = onlyOpposite(addresses)?.replace(/^\/.*/, '') || undefined
    if (range !== undefined && isOnly(addresses) && scope.isEverywhere && (this.#allow ?? range) === range) {
      this.#allow = range
      return
    }
    const host = plainHost(onlyOpposite(names))
    const reason = `${name} in line ${at.line} refuses it ${scope.tests.length > 0 ? `under ${conditionText(scope.tests)}` : 'everywhere'}`
    this.#closeFiles(reason)
    const certain = scope.tests.filter(test => !addresses?.includes(test))
    this.#change(tunnel => {
      if (verdictOf(certain, tunnel.facts) === 'never') return tunnel
      if (range !== undefined && isOnly(urls, addresses)) return restricted(tunnel, range)
      return host !== undefined && isOnly(names) ? atHost(tunnel, host, reason) : refused(tunnel, reason)
    })
  }

  /** `url.access-allow`: the only suffixes of paths that are served. */
  #allowed(scope: ViewScope, setting: Setting): void {
    const ends = textsOf(setting.value)
    if (ends.length === 0) return
    const urls = testsOf('url', scope.tests)
    if (urls.length < scope.tests.length) this.#warnOfEverybody(scope, setting)
    this.#denyPaths([...urls, ...ends.map(end => urlTest('!$', end))], setting)
  }

  /** Programs behind paths and suffixes. */
  #handled(scope: ViewScope, setting: Setting): void {
    const { name, value, at } = setting
    if (!(value instanceof List)) return
    const keys = value.entries.flatMap(({ key }) => (key === undefined ? [] : [key]))
    this.#report.warn(
      at,
      `${name} is not carried over: mqway refuses ${keys.map(key => JSON.stringify(key)).join(', ')} and serves no source of a program`,
    )
    const tests = testsOf('url', scope.tests)
    for (const key of keys) {
      if (key === '' || key === '/') this.#closeFiles(`${name} in line ${at.line} answered all requests`)
      else this.#denyPaths([...tests, urlTest(key.startsWith('/') ? '=^' : '=$', key)], setting)
    }
  }

  /** Directives with restrictions, or mappings of paths to files, that mqway cannot express. */
  #unknown(view: View): void {
    const found = view.scopes.flatMap(scope => [...scope.settings.values()].map(setting => ({ scope, setting })))
    for (const { scope, setting } of found) {
      const { name, at } = setting
      if (rewriting.test(name) || unknownProtections.test(name)) {
        view.takeAll(name)
        this.#closeFiles(`${name} in line ${at.line} decides what is read there`)
        this.#report.warn(at, `${name} is not carried over: what depends on it is left out`)
      }
      if (name === 'server.chroot') this.#closeFiles(`${name} in line ${at.line} is where its paths begin`)
      if (name === 'server.follow-symlink' && !isEnabled(setting)) {
        view.takeAll(name)
        this.#closeFiles(`${name} in line ${at.line} refuses links, which mqway follows inside of the directory`)
      }
      if (!unknownProtections.test(name) && !name.startsWith('url.rewrite')) continue
      this.#change(tunnel =>
        verdictOf(scope.tests, tunnel.facts) === 'never'
          ? tunnel
          : refused(tunnel, `${name} in line ${at.line} may keep it closed, or lead elsewhere`),
      )
    }
  }
}

/** Warns about lists under a condition: in lighttpd, they replace the earlier list; mqway has one list, which refuses both. */
function warnOfReplaced(view: View, name: string, report: Report): void {
  const found = view.takeAll(name)
  for (const [index, { setting }] of found.entries()) {
    const own = textsOf(setting.value)
    const lost = found.slice(0, index).flatMap(({ setting: earlier }) => textsOf(earlier.value))
    if (own.includes('') || lost.every(end => own.includes(end))) continue
    report.warn(
      setting.at,
      `${name}: in lighttpd this list replaces the one before it; mqway refuses what either refuses`,
    )
  }
}

/** The value of the only test, if it is one with `!=`. */
function onlyOpposite(tests: readonly Test[] | undefined): string | undefined {
  const [only, ...more] = tests ?? []
  return more.length === 0 && only?.operator === '!=' ? only.value : undefined
}

/** The host, if lighttpd and mqway compare it in the same way: without a port, and in lower case. */
function plainHost(host: string | undefined): string | undefined {
  return host !== undefined && /^[a-z0-9_.-]+$/.test(host) ? host : undefined
}

/** Restricts a tunnel to one host. */
function atHost(tunnel: Tunnel, host: string, reason: string): Tunnel {
  const { hosts } = tunnel.input
  if (hosts === undefined) return { ...tunnel, input: { ...tunnel.input, hosts: [host] } }
  return hosts.length === 1 && hosts[0] === host ? tunnel : refused(tunnel, reason)
}

/** Restricts a tunnel to `range`. Two different ranges are refused, because their intersection is unknown. */
function restricted(tunnel: Tunnel, range: string): Tunnel {
  const { allow } = tunnel.input
  if (allow === undefined) return { ...tunnel, input: { ...tunnel.input, allow: [range] } }
  return allow.length === 1 && allow[0] === range ? tunnel : refused(tunnel, 'two conditions limit its addresses')
}
