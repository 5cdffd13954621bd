import type { ConfigInput } from '../schema.js'
import { conditionText, conjunction, type Test, verdictOf } from './conditions.js'
import { List, type Setting, textOf, textsOf } from './evaluate.js'
import type { Socket } from './listeners.js'
import type { Report } from './report.js'
import { type Tunnel, testsOf, urlTest } from './tunnels.js'
import type { View, ViewScope } from './view.js'

/** Applies a change to every tunnel of a socket. */
type Change = (alter: (tunnel: Tunnel) => Tunnel) => void

type AccessInput = NonNullable<ConfigInput['access']>

/** What lighttpd kept closed, in mqway's words. */
export interface Protections {
  /** `deny`: paths that are refused to everybody. */
  readonly deny: readonly string[]
  /** `limits.allow`: the addresses that may connect; `undefined` for all. */
  readonly allow: readonly string[] | undefined
  readonly access: AccessInput | undefined
  /** The reason why the public directory is left out; `undefined` where nothing speaks against it. */
  readonly filesRefusal: string | undefined
  /** The tunnels of each socket, those with their protections that mqway has, and those that are left out with the reason. */
  readonly tunnels: ReadonlyMap<Socket, readonly Tunnel[]>
}

/** Directives that may close something in a way that mqway has no words for. */
const unknownProtections =
  /^(magnet\.attract|secdownload\.|evasive\.|extforward\.hap-|geoip\.|maxminddb\.|auth\.extern)/

/** Handlers of paths or suffixes: the files behind them are programs, whose source is nobody's to read. */
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

/** Directives that decide which file a path is, so that files become readable which were not. */
const rewriting = /^(url\.rewrite|simple-vhost\.|evhost\.|vhostdb\.|userdir\.|webdav\.)/

/** Reads all protections of all sockets that are carried over; whatever mqway cannot say closes what it is about. */
export function readProtections(tunnels: ReadonlyMap<Socket, readonly Tunnel[]>, report: Report): Protections {
  const reading = new Reading(report)
  const kept = new Map([...tunnels].map(([socket, own]) => [socket, reading.socket(socket, own)]))
  return { ...reading.result(), tunnels: kept }
}

class Reading {
  readonly #report: Report
  readonly #deny = new Set<string>()
  readonly #access: { htpasswd?: string; clientCertificates?: { ca: string; crl?: string } } = {}
  #allow: string | undefined
  #filesRefusal: string | undefined

  constructor(report: Report) {
    this.#report = report
  }

  result(): Omit<Protections, 'tunnels'> {
    return {
      deny: [...this.#deny],
      allow: this.#allow === undefined ? undefined : [this.#allow],
      access: Object.keys(this.#access).length > 0 ? this.#access : undefined,
      filesRefusal: this.#filesRefusal,
    }
  }

  socket({ view, tls }: Socket, tunnels: readonly Tunnel[]): Tunnel[] {
    let kept = [...tunnels]
    const change: Change = alter => {
      kept = kept.map(alter)
    }
    for (const { scope, setting } of view.takeAll('url.access-deny')) this.#denied(scope, setting, change)
    for (const { scope, setting } of view.takeAll('url.access-allow')) this.#allowed(scope, setting)
    for (const { scope, setting } of view.takeAll('static-file.exclude-extensions'))
      this.#denied(scope, setting, change)
    for (const { scope, setting } of view.takeAll('ssi.extension')) this.#denied(scope, setting, change)
    for (const name of handlers) {
      for (const { scope, setting } of view.takeAll(name)) this.#handled(scope, setting)
    }
    this.#login(view, tunnels, change)
    if (tls) this.#certificates(view, change)
    this.#unknown(view, change)
    return kept
  }

  #closeFiles(reason: string): void {
    this.#filesRefusal ??= reason
  }

  /** `url.access-deny`: the ends of paths that are refused; the empty one refuses all. */
  #denied(scope: ViewScope, setting: Setting, change: Change): void {
    const ends = textsOf(setting.value)
    if (ends.includes('')) {
      this.#allDenied(scope, setting, change)
      return
    }
    const tests = testsOf('url', scope.tests)
    if (tests.length < scope.tests.length) {
      this.#report.warn(
        setting.at,
        `${setting.name}: mqway refuses these paths to everybody, not only under ${conditionText(scope.tests)}`,
      )
    }
    for (const end of ends) this.#denyPaths([...tests, urlTest('=$', end)], setting)
  }

  #denyPaths(tests: readonly Test[], { name, at }: Pick<Setting, 'name' | 'at'>): void {
    const [only] = tests
    const source = conjunction(tests)
    if (tests.length === 1 && only?.operator === '=$' && !/^\/.*\/$/.test(only.value)) this.#deny.add(only.value)
    else if (source !== undefined) this.#deny.add(`/${source}/`)
    else {
      this.#closeFiles(`${name} in line ${at.line}: JavaScript has no regular expression for its condition`)
      this.#report.warn(
        at,
        `${name} is not carried over: JavaScript has no regular expression for ${conditionText(tests)}`,
      )
    }
  }

  /** `url.access-deny = ( "" )`: everything is refused where the conditions hold. */
  #allDenied(scope: ViewScope, { name, at }: Setting, change: Change): void {
    const [urls, addresses, names] = (['url', 'remoteip', 'host'] as const).map(subject =>
      testsOf(subject, scope.tests),
    )
    const isOnly = (...tests: (Test[] | undefined)[]): boolean => tests.flat().length === scope.tests.length
    if (urls && urls.length > 0 && isOnly(urls)) {
      this.#denyPaths(urls, { name, at })
      return
    }
    const range = onlyOpposite(addresses)
    if (range !== undefined && isOnly(addresses) && scope.isEverywhere && (this.#allow ?? range) === range) {
      this.#allow = range
      return
    }
    const host = onlyOpposite(names)
    const reason = `${name} in line ${at.line} refuses it ${scope.tests.length > 0 ? `under ${conditionText(scope.tests)}` : 'everywhere'}`
    this.#closeFiles(reason)
    const certain = scope.tests.filter(test => !addresses?.includes(test))
    change(tunnel => {
      if (verdictOf(certain, tunnel.facts) === 'never') return tunnel
      if (range !== undefined && isOnly(urls, addresses)) return restricted(tunnel, range)
      return host !== undefined && isOnly(names) ? atHost(tunnel, host, reason) : refused(tunnel, reason)
    })
  }

  /** `url.access-allow`: the only ends of paths that are served. */
  #allowed(scope: ViewScope, setting: Setting): void {
    const tests = [...testsOf('url', scope.tests), ...textsOf(setting.value).map(end => urlTest('!$', end))]
    this.#denyPaths(tests, setting)
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

  /** `auth.require`: mqway asks for a login on tunnels; pages that need one are refused. */
  #login(view: View, tunnels: readonly Tunnel[], change: Change): void {
    const backend = view.takeText('auth.backend')
    const file = view.takeText('auth.backend.htpasswd.userfile')
    view.takeAll('auth.cache')
    for (const { scope, setting } of view.takeAll('auth.require')) {
      if (!(setting.value instanceof List)) continue
      for (const { key = '', value, at } of setting.value.entries) {
        const options = value instanceof List ? value : undefined
        const method = textOf(options?.get('method')?.value)
        const require = textOf(options?.get('require')?.value)
        const canSay = backend === 'htpasswd' && file !== undefined && method === 'basic' && require === 'valid-user'
        const tests = [...scope.tests, ...(key === '' ? [] : [urlTest('=^', key)])]
        const isForAll = tests.length === 0 || conditionText(tests) === conditionText([urlTest('=^', '/')])
        // `deny` is for pages and tunnels alike.
        const isForTunnels = tunnels.some(tunnel => verdictOf(tests, tunnel.facts) !== 'never')
        if (isForAll || isForTunnels) {
          this.#closeFiles(`auth.require in line ${at.line} asks for a login, and mqway has none for pages`)
        } else {
          this.#denyPaths(testsOf('url', tests), setting)
          this.#report.warn(
            at,
            `auth.require: the pages under ${JSON.stringify(key)} are refused to everybody: mqway has no login for pages`,
          )
        }
        change(tunnel => {
          if (verdictOf(tests, tunnel.facts) === 'never') return tunnel
          if (!canSay) {
            return refused(
              tunnel,
              `auth.require in line ${at.line} asks for a login of the kind ${method ?? ''} ${backend ?? ''} (${require ?? ''}); mqway has htpasswd with bcrypt (mqway passwd) and access.jwt`,
            )
          }
          this.#access.htpasswd = file
          this.#report.warn(
            at,
            `access.htpasswd is ${file}: mqway takes its lines with bcrypt alone; make others anew with mqway passwd`,
          )
          return { ...tunnel, input: { ...tunnel.input, requireIdentity: true } }
        })
      }
    }
  }

  /** `ssl.verifyclient.*`: nobody gets in without a certificate. */
  #certificates(view: View, change: Change): void {
    const activate = view.take('ssl.verifyclient.activate')
    const isEnforced = view.takeSwitch('ssl.verifyclient.enforce') ?? true
    const chain = view.take('ssl.ca-file')
    const ca = view.takeText('ssl.verifyclient.ca-file') ?? textOf(chain?.value)
    const crl = view.takeText('ssl.verifyclient.ca-crl-file') ?? view.takeText('ssl.ca-crl-file')
    for (const name of ['depth', 'username', 'exportcert', 'ca-dn-file']) view.take(`ssl.verifyclient.${name}`)
    if (textOf(activate?.value) !== 'enable' || !activate) return
    if (!isEnforced) {
      this.#report.warn(
        activate.at,
        'ssl.verifyclient without enforce asks for certificates and lets everybody in: it is left out',
      )
      return
    }
    this.#closeFiles(
      `ssl.verifyclient.enforce in line ${activate.at.line} asks for a certificate, and mqway asks for none on pages`,
    )
    if (ca !== undefined) this.#access.clientCertificates = { ca, ...(crl === undefined ? {} : { crl }) }
    change(tunnel => {
      if (ca === undefined)
        return refused(tunnel, 'ssl.verifyclient asks for certificates, and no file names who signs them')
      if (tunnel.input.requireIdentity)
        return refused(tunnel, 'it needs a certificate and a login, and mqway is content with one of them')
      return { ...tunnel, input: { ...tunnel.input, requireIdentity: true } }
    })
  }

  /** Directives that may close something, or change which file a path is, in a way that mqway has no words for. */
  #unknown(view: View, change: Change): void {
    const found = view.scopes.flatMap(scope => [...scope.settings.values()].map(setting => ({ scope, setting })))
    for (const { scope, setting } of found) {
      const { name, at } = setting
      if (rewriting.test(name) || unknownProtections.test(name)) {
        view.takeAll(name)
        this.#closeFiles(`${name} in line ${at.line} decides what is read there`)
        this.#report.warn(at, `${name} is not carried over: what depends on it is left out`)
      }
      if (name === 'server.follow-symlink' && textOf(setting.value) === 'disable') {
        view.takeAll(name)
        this.#closeFiles(`${name} in line ${at.line} refuses links, which mqway follows inside of the directory`)
      }
      if (!unknownProtections.test(name) && !name.startsWith('url.rewrite')) continue
      change(tunnel =>
        verdictOf(scope.tests, tunnel.facts) === 'never'
          ? tunnel
          : refused(tunnel, `${name} in line ${at.line} may keep it closed, or lead elsewhere`),
      )
    }
  }
}

function refused(tunnel: Tunnel, refusal: string): Tunnel {
  return { ...tunnel, refusal: tunnel.refusal ?? refusal }
}

/** The value of the only test, where that is one with `!=`. */
function onlyOpposite(tests: readonly Test[] | undefined): string | undefined {
  const [only, ...more] = tests ?? []
  return more.length === 0 && only?.operator === '!=' ? only.value : undefined
}

/** Has a tunnel at one host only. */
function atHost(tunnel: Tunnel, host: string, reason: string): Tunnel {
  const { hosts } = tunnel.input
  if (hosts === undefined) return { ...tunnel, input: { ...tunnel.input, hosts: [host] } }
  return hosts.length === 1 && hosts[0] === host ? tunnel : refused(tunnel, reason)
}

/** Keeps a tunnel to `range`; of two different ranges, nobody can be in both for sure. */
function restricted(tunnel: Tunnel, range: string): Tunnel {
  const { allow } = tunnel.input
  if (allow === undefined) return { ...tunnel, input: { ...tunnel.input, allow: [range] } }
  return allow.length === 1 && allow[0] === range ? tunnel : refused(tunnel, 'two conditions limit its addresses')
}
