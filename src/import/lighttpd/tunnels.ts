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

/** A tunnel as it is at one socket. */
export interface Tunnel {
  readonly input: TunnelInput
  /** Everything that is true of a request that it takes. */
  readonly facts: readonly Test[]
  readonly at: Position
  /** The reason why it is left out. */
  readonly refusal?: string
}

/**
 * All tunnels at one socket, in the order in which mqway tries them. In lighttpd, the last block that holds for a request counts: here it is
 * the first.
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

/** Requests that never get to a tunnel. */
interface Exclusion {
  /** All of them hold for such a request. */
  readonly tests: readonly Test[]
  /** The reason to give where it is about all requests; without one, another tunnel has them. */
  readonly reason?: string
}

/** lighttpd redirects before it looks for a tunnel. */
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

/** Whether every path matches a regular expression, by its usual forms. */
export function isAnyPath(expression: string): boolean {
  return /^(\^?\/?\(?\.\*\)?\$?|\^?\/?)$/.test(expression)
}

/** Leaves a tunnel out; the first reason counts. */
export function refused(tunnel: Tunnel, refusal: string): Tunnel {
  return { ...tunnel, refusal: tunnel.refusal ?? refusal }
}

/** Joins a draft with the conditions of its block, and keeps it from requests that never get to it. */
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
