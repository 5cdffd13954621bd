import type { ConfigInput } from '../../config/schema.js'
import { conditionText, type Test, testsOf, urlTest, verdictOf } from './conditions.js'
import { List, textOf } from './evaluate.js'
import type { Report } from './report.js'
import type { Position } from './tokens.js'
import { refused, type Tunnel } from './tunnels.js'
import { isEnabled, type View } from './view.js'

type AccessInput = NonNullable<ConfigInput['access']>

/** Applies a change to every tunnel of a socket. */
export type Change = (alter: (tunnel: Tunnel) => Tunnel) => void

/** Functions that restrict pages. */
export interface PageRules {
  /** Leaves out the public directory, for this reason. */
  closeFiles(reason: string): void
  denyPaths(tests: readonly Test[], setting: { readonly name: string; readonly at: Position }): void
}

const backendNames = ['auth.backend', 'auth.backend.htpasswd.userfile'] as const

const certificateNames = ['activate', 'enforce', 'ca-file', 'ca-crl-file'].map(name => `ssl.verifyclient.${name}`)

/** Translates logins and client certificates to `access` and `requireIdentity` of tunnels. */
export class Identities {
  readonly #report: Report
  readonly #pages: PageRules
  #access: AccessInput | undefined

  constructor(report: Report, pages: PageRules) {
    this.#report = report
    this.#pages = pages
  }

  get access(): AccessInput | undefined {
    return this.#access
  }

  /** `auth.require`: mqway has logins for tunnels only; pages that require one are refused. */
  readLogins(view: View, tunnels: readonly Tunnel[], change: Change): void {
    const backends = backendNames.flatMap(name => view.takeAll(name))
    const conditional = backends.find(({ scope }) => scope.tests.length > 0)
    const backend = view.takeText('auth.backend')
    const htpasswd = view.takeText('auth.backend.htpasswd.userfile')
    view.takeAll('auth.cache')
    for (const { scope, setting } of view.takeAll('auth.require')) {
      if (!(setting.value instanceof List)) continue
      for (const { key = '', value, at } of setting.value.entries) {
        const options = value instanceof List ? value : undefined
        const method = textOf(options?.get('method')?.value)
        const require = textOf(options?.get('require')?.value)
        const kind = `${method ?? ''} ${backend ?? ''} (${require ?? ''})`
        const canSay = backend === 'htpasswd' && method === 'basic' && require === 'valid-user' && !conditional
        const tests = [...scope.tests, ...(key === '' ? [] : [urlTest('=^', key)])]
        this.#closePages(tests, tunnels, key, at)
        change(tunnel => {
          if (verdictOf(tests, tunnel.facts) === 'never') return tunnel
          if (canSay && htpasswd !== undefined) return this.#identified(tunnel, { htpasswd }, at)
          const reason = conditional
            ? `whose users depend on ${conditionText(conditional.scope.tests)}`
            : `of the kind ${kind}; mqway has htpasswd with bcrypt (mqway passwd) and access.jwt`
          return refused(tunnel, `auth.require in line ${at.line} asks for a login ${reason}`)
        })
      }
    }
  }

  /** `ssl.verifyclient.*`: client certificates. */
  readCertificates(view: View, change: Change): void {
    const all = certificateNames.flatMap(name => view.takeAll(name))
    const activations = all.filter(({ setting }) => setting.name === 'ssl.verifyclient.activate' && isEnabled(setting))
    const chain = view.take('ssl.ca-file')
    const depth = view.take('ssl.verifyclient.depth')
    for (const name of ['username', 'exportcert', 'ca-dn-file']) view.take(`ssl.verifyclient.${name}`)
    if (activations.length === 0) return
    for (const { scope, setting } of all) {
      if (scope.tests.length > 0) this.#certificateUnder(scope.tests, setting, change)
    }
    const activate = view.take('ssl.verifyclient.activate')
    if (!activate || !isEnabled(activate)) return
    const { at } = activate
    if (view.takeSwitch('ssl.verifyclient.enforce') === false) {
      this.#report.warn(
        at,
        'ssl.verifyclient without enforce asks for certificates and lets everybody in: it is left out',
      )
      return
    }
    if (depth && !(Number(textOf(depth.value)) >= 9)) {
      this.#report.warn(
        depth.at,
        'ssl.verifyclient.depth is not carried over: mqway takes longer chains of certificates',
      )
    }
    this.#pages.closeFiles(
      `ssl.verifyclient.enforce in line ${at.line} asks for a certificate, and mqway asks for none on pages`,
    )
    const ca = view.takeText('ssl.verifyclient.ca-file') ?? textOf(chain?.value)
    const crl = view.takeText('ssl.verifyclient.ca-crl-file') ?? view.takeText('ssl.ca-crl-file')
    change(tunnel => {
      if (ca === undefined)
        return refused(tunnel, 'ssl.verifyclient asks for certificates, and no file names who signs them')
      if (tunnel.input.requireIdentity)
        return refused(tunnel, 'it needs a certificate and a login, and mqway is content with one of them')
      return this.#identified(tunnel, { clientCertificates: { ca, ...(crl === undefined ? {} : { crl }) } }, at)
    })
  }

  /** Client certificates of one host (SNI), which mqway cannot require. */
  #certificateUnder(tests: readonly Test[], { name, at }: { name: string; at: Position }, change: Change): void {
    const reason = `${name} in line ${at.line} holds under ${conditionText(tests)}, and mqway asks all clients or none for a certificate`
    this.#pages.closeFiles(reason)
    change(tunnel => (verdictOf(tests, tunnel.facts) === 'never' ? tunnel : refused(tunnel, reason)))
  }

  #closePages(tests: readonly Test[], tunnels: readonly Tunnel[], key: string, at: Position): void {
    const urls = testsOf('url', tests)
    const isForAll = conditionText(tests) === conditionText([urlTest('=^', '/')])
    // `deny` applies to pages and tunnels.
    const isForTunnels = tunnels.some(tunnel => verdictOf(tests, tunnel.facts) !== 'never')
    if (urls.length === 0 || isForAll || isForTunnels) {
      this.#pages.closeFiles(`auth.require in line ${at.line} asks for a login, and mqway has none for pages`)
      return
    }
    this.#pages.denyPaths(urls, { name: 'auth.require', at })
    this.#report.warn(
      at,
      `auth.require: the pages under ${JSON.stringify(key)} are refused to everybody: mqway has no login for pages`,
    )
  }

  /** Makes a tunnel require an identity. All tunnels share one list of users or one CA; a second one would admit its users everywhere. */
  #identified(tunnel: Tunnel, access: AccessInput, at: Position): Tunnel {
    this.#access ??= access
    if (JSON.stringify(this.#access) !== JSON.stringify(access)) {
      return refused(
        tunnel,
        `line ${at.line} asks for other users or certificates than another tunnel does, and mqway has one list for all`,
      )
    }
    if (access.htpasswd !== undefined) {
      this.#report.warn(
        at,
        `access.htpasswd is ${access.htpasswd}: mqway takes its lines with bcrypt alone; make others anew with mqway passwd`,
      )
    }
    return { ...tunnel, input: { ...tunnel.input, requireIdentity: true } }
  }
}
