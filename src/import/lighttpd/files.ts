import type { ConfigInput } from '../../config/schema.js'
import { conditionText } from './conditions.js'
import { List, textOf, textsOf } from './evaluate.js'
import type { Socket } from './listeners.js'
import type { Report } from './report.js'
import type { View } from './view.js'

/** The public directory, or the reason why it is left out. */
export interface Files {
  readonly options: Pick<ConfigInput, 'public' | 'index'>
  readonly leftOut?: { readonly directory: string; readonly reason: string } | undefined
}

/**
 * The static files of the sockets that are listened on.
 *
 * @param refusal the reason why they are left out; `undefined` for none
 */
export function readFiles(sockets: readonly Socket[], refusal: string | undefined, report: Report): Files {
  const roots = new Map(sockets.map(({ view }) => [view.takeText('server.document-root'), view] as const))
  const [root] = roots.keys()
  for (const { view } of sockets) warnOfDifferences(view, report)
  if (root === undefined && roots.size <= 1) return { options: { public: 'off' } }
  const reason = refusal ?? (roots.size > 1 ? 'each socket has another one, and mqway has one' : undefined)
  if (reason !== undefined) {
    const directory = [...roots.keys()].find(candidate => candidate !== undefined) ?? ''
    return { options: { public: 'off' }, leftOut: { directory, reason } }
  }
  const [setting] = [...roots.values()].flatMap(view => view.take('server.document-root') ?? [])
  if (setting) report.note(setting.at, hiddenFiles)
  const index = indexOf([...roots.values()], report)
  return { options: { ...(root === undefined ? {} : { public: root }), ...(index ? { index } : {}) } }
}

const hiddenFiles =
  'server.document-root: not served are names that begin with a dot, but those below /.well-known/, and links that lead out of the directory'

function indexOf(views: readonly View[], report: Report): string[] | undefined {
  const [setting] = views.flatMap(view => view.take('index-file.names') ?? view.take('server.indexfiles') ?? [])
  if (!setting) return undefined
  const names = textsOf(setting.value)
  for (const name of names.filter(candidate => candidate.includes('/'))) {
    report.warn(
      setting.at,
      `${setting.name}: ${JSON.stringify(name)} is not carried over: mqway looks in the directory alone`,
    )
  }
  const own = names.filter(name => !name.includes('/') && name !== '')
  return own.length === 0 || String(own) === 'index.html' ? undefined : own
}

function warnOfDifferences(view: View, report: Report): void {
  for (const name of ['server.document-root', 'index-file.names', 'server.indexfiles'] as const) {
    for (const { scope, setting } of view.takeAll(name)) {
      if (scope.tests.length > 0) {
        report.warn(
          setting.at,
          `${name} is not carried over: it holds under ${conditionText(scope.tests)}, and mqway has one for all`,
        )
      }
    }
  }
  const types = view.take('mimetype.assign')
  if (!(types?.value instanceof List)) return
  for (const { key = '', value, at } of types.value.entries) {
    const charset = /charset=([\w-]+)/i.exec(textOf(value) ?? '')?.[1]
    if (charset !== undefined && !/^utf-?8$/i.test(charset)) {
      report.warn(at, `mimetype.assign: mqway says charset=utf-8 of ${key} files, and not ${charset}`)
    }
  }
}
