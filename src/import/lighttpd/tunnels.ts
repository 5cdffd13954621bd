import { conditionText, excluding, simplified, type Test, urlTest, verdictOf } from './conditions.js'
import type { Draft, TunnelInput } from './drafts.js'
import { List, type Setting } from './evaluate.js'
import { matchFacts } from './matches.js'
import type { Modules } from './modules.js'
import type { Report } from './report.js'
import type { Position } from './tokens.js'
import type { View, ViewScope } from './view.js'
import { websocketTunnels } from './websocket-tunnels.js'
import { wstunnelTunnels } from './wstunnel-tunnels.js'

/** A tunnel at one socket. */
export interface Tunnel {
  readonly input: TunnelInput
  /** Conditions that all of its requests satisfy. */
  readonly facts: readonly Test[]
  readonly at: Position
  /** The reason why it is left out. */
  readonly refusal?: string
}

/**
 * All tunnels at one socket, in the order in which mqway tries them. lighttpd uses the last matching block, mqway the first matching
 * tunnel.
 */
export function readTunnels(view: View, modules: Modules, report: Report): Tunnel[] {
  const read = (name: string, module: string, drafts: ReadDrafts): Tunnel[] => {
    const tunnels = readModule(view, name, drafts, report)
    const reason = `lighttpd did not have it, as ${module} is not in server.modules`
    return modules.has(module) ? tunnels : tunnels.map(tunnel => refused(tunnel, reason))
  }
  return [
    ...read('websocket.server', 'mod_websocket', websocketTunnels),
    ...read('wstunnel.server', 'mod_wstunnel', wstunnelTunnels),
  ]
}

type ReadDrafts = (setting: Setting, scope: ViewScope, view: View, report: Report) => Draft[]

function readModule(view: View, name: string, read: ReadDrafts, report: Report): Tunnel[] {
  const found = view.takeAll(name)
  const redirects = redirectsOf(view)
  return found
    .flatMap(({ scope, setting }, index) => {
      const later = [...redirects, ...found.slice(index + 1).map(other => ({ tests: other.scope.tests }))]
      return [read(setting, scope, view, report).flatMap(draft => applyScope(draft, scope, later, view.hasDefaultPort))]
    })
    .reverse()
    .flat()
}

/** Requests that do not reach a tunnel. */
interface Exclusion {
  /** Conditions that all such requests satisfy. */
  readonly tests: readonly Test[]
  /** The reason to report; `undefined` if another tunnel gets the requests. */
  readonly reason?: string
}

/** Redirects, which lighttpd handles before tunnels. */
function redirectsOf(view: View): Exclusion[] {
  return view.takeAll('url.redirect').flatMap(({ scope, setting: { value, at } }) => {
    const keys = value instanceof List ? value.entries.map(({ key = '' }) => key) : []
    const reason = `url.redirect in line ${at.line} leads its connections elsewhere`
    return keys.map(key => ({
      tests: [...scope.tests, ...(isAnyPath(key) ? [] : [simplified(urlTest('=~', key))])],
      reason,
    }))
  })
}

/** Whether a regular expression is one of the usual ones that match every path. */
export function isAnyPath(expression: string): boolean {
  return /^(\^?\/?\(?\.\*\)?\$?|\^?\/?)$/.test(expression)
}

/** Leaves out a tunnel; the first reason is kept. */
export function refused(tunnel: Tunnel, refusal: string): Tunnel {
  return { ...tunnel, refusal: tunnel.refusal ?? refusal }
}

/** Adds the conditions of the block to a draft, and excludes requests that do not reach it. */
function applyScope(
  draft: Draft,
  scope: ViewScope,
  exclusions: readonly Exclusion[],
  hasDefaultPort: boolean,
): Tunnel[] {
  let facts = [...scope.tests, ...draft.tests]
  let { refusal } = draft
  for (const { tests, reason } of exclusions) {
    const verdict = verdictOf(tests, facts)
    if (verdict === 'never') continue
    if (verdict === 'always' && reason === undefined) return []
    const excluded = verdict === 'always' ? undefined : excluding(tests)
    if (excluded) facts = [...facts, excluded]
    else refusal ??= reason ?? `another block, under ${conditionText(tests)}, counts for a part of its connections`
  }
  const { input, at } = draft
  const match = matchFacts(facts, hasDefaultPort)
  refusal ??= match.refusal
  const placed = { ...match.input, ...input }
  return [{ input: placed, facts, at, ...(refusal === undefined ? {} : { refusal }) }]
}
