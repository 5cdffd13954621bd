import type { ConfigInput } from '../../config/schema.js'
import { List, textOf, textsOf } from './evaluate.js'
import type { Socket } from './listeners.js'
import type { Report } from './report.js'

/** The trusted proxies. */
export interface Proxies {
  readonly options: Pick<ConfigInput, 'trustedProxies'>
  /** Whether mqway sees the same client addresses as lighttpd, so that conditions on them keep their meaning. */
  readonly areSame: boolean
}

/**
 * Reads the trusted proxies of mod_extforward.
 *
 * @param isLoaded whether the module is loaded; otherwise, lighttpd trusts no proxy
 */
export function readProxies(sockets: readonly Socket[], isLoaded: boolean, report: Report): Proxies {
  if (!isLoaded) return { options: {}, areSame: true }
  const found = sockets.flatMap(({ view }) => view.takeAll('extforward.forwarder'))
  const headers = sockets.flatMap(({ view }) => view.takeAll('extforward.headers'))
  const [first] = found
  if (!first) return { options: {}, areSame: true }
  const { value, at } = first.setting
  const refuse = (reason: string): Proxies => {
    report.warn(at, `extforward.forwarder is not carried over: ${reason}`)
    return { options: {}, areSame: false }
  }
  const isOne = found.length === sockets.length && found.every(({ setting }) => setting === first.setting)
  if (first.scope.tests.length > 0 || !isOne) return refuse('it depends on conditions, and trustedProxies does not')
  const other = headers.find(
    ({ scope, setting }) =>
      scope.tests.length > 0 || textsOf(setting.value).some(name => !/^x-forwarded-for$/i.test(name)),
  )
  if (other) {
    return refuse('extforward.headers names others than X-Forwarded-For, which is all that mqway reads')
  }
  const entries = value instanceof List ? value.entries : []
  const unknown = entries.find(entry => entry.key === 'all' || !/^(trust|1)$/.test(textOf(entry.value) ?? ''))
  if (unknown?.key === 'all') return refuse('with "all", anybody could claim any address')
  if (unknown)
    return refuse(`mqway has nothing like ${JSON.stringify(unknown.key)} => ${JSON.stringify(textOf(unknown.value))}`)
  const trustedProxies = entries.flatMap(({ key }) => (key === undefined ? [] : [key]))
  return { options: trustedProxies.length > 0 ? { trustedProxies } : {}, areSame: true }
}
