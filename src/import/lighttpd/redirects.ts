import { testsOf } from './conditions.js'
import { List, textOf } from './evaluate.js'
import type { Report } from './report.js'
import { isAnyPath } from './tunnels.js'
import type { View } from './view.js'

/** Whether a plain socket redirects every request to https at the same host. */
export function redirectsToHttps(view: View, report: Report): boolean {
  const found = view.takeAll('url.redirect')
  return found.some(({ scope, setting }) => {
    const isForAll = scope.tests.every(
      test => testsOf('host', [test]).length > 0 && matchesEveryHost(test.operator, test.value),
    )
    if (!isForAll || !(setting.value instanceof List)) return false
    const { entries } = setting.value
    return entries.some(({ key = '', value, at }) => {
      const target = textOf(value) ?? ''
      if (!isAnyPath(key) || !target.startsWith('https://')) return false
      if (!/^https:\/\/(%[01]|\$\{url\.(authority|host)\})/.test(target)) {
        report.warn(at, `url.redirect: mqway sends everybody on to the same host with https, and not to ${target}`)
      }
      if (found.length > 1 || entries.length > 1) {
        report.warn(
          at,
          'url.redirect: mqway sends every request on to https, also those that the other entries are about',
        )
      }
      return true
    })
  })
}

function matchesEveryHost(operator: string, value: string): boolean {
  return operator === '=~' && /^\^?\(?\.[*+]\)?\$?$/.test(value)
}
