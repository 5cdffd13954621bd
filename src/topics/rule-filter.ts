import { topicFilterProblem } from './topic-syntax.js'

/** A part of an access rule's filter: text, or a placeholder. */
export type RulePart = { readonly text: string } | { readonly placeholder: 'user' | 'client' }

/** Parses the filter of an access rule: `%u` is the user, `%c` the client id, `%%` a `%`. @returns `undefined` for any other `%` */
export function parseRuleFilter(filter: string): readonly RulePart[] | undefined {
  const parts: RulePart[] = []
  for (const piece of filter.match(/%.?|[^%]+/gsu) ?? []) {
    if (piece === '%u') parts.push({ placeholder: 'user' })
    else if (piece === '%c') parts.push({ placeholder: 'client' })
    else if (piece === '%%') parts.push({ text: '%' })
    else if (piece.startsWith('%')) return undefined
    else parts.push({ text: piece })
  }
  return parts
}

/** Returns why `filter` is no filter of an access rule, to follow the filter: `must …`; `undefined` if it is one. */
export function ruleFilterProblem(filter: string): string | undefined {
  const parts = parseRuleFilter(filter)
  if (parts === undefined) return 'must have no other placeholders than %u (user) and %c (client id); a % itself is %%'
  const example = parts.map(part => ('text' in part ? part.text : 'x')).join('')
  // `$share/…` is a form of subscription, and no topic that a rule could allow.
  if (/^\$share(\/|$)/.test(example))
    return 'must be without $share/<group>/: a shared subscription needs the right to the filter behind that'
  return topicFilterProblem(example)
}
