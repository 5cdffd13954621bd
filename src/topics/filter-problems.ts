import { hasForbiddenCharacter } from './forbidden-characters.js'

/*
 * What a topic filter looks like in the configuration, in a token and in a webhook's answer.
 */

/** A length of two bytes is before each string in MQTT 3.1.1 §1.5.3. */
const maxBytes = 65_535

/** What is wrong with `filter` as an MQTT 3.1.1 topic filter (§4.7), as it follows the filter: `must …`; if anything is. */
export function topicFilterProblem(filter: string): string | undefined {
  if (filter === '') return 'must not be empty'
  if (filter.includes('\0')) return 'must not hold U+0000' // [MQTT-4.7.3-2]
  if (hasForbiddenCharacter(filter)) return 'must not hold control characters, or what is no character' // [MQTT-1.5.3-1]
  if (Buffer.byteLength(filter) > maxBytes) return `must have at most ${maxBytes} bytes`
  const levels = filter.split('/')
  for (const [index, level] of levels.entries()) {
    // [MQTT-4.7.1-2], [MQTT-4.7.1-3]
    if (level.includes('+') && level !== '+') return 'must have + alone in its level, as in news/+/sport'
    if (!level.includes('#')) continue
    if (level !== '#') return 'must have # alone in its level, as in news/#'
    if (index !== levels.length - 1) return 'must have # in the last level only, as in news/#'
  }
  return undefined
}

/** More levels than anybody's filter has; Aedes takes as many. What finds a topic's filters goes as deep as they are long. */
export const maxFilterLevels = 100

/** What is wrong with how many levels `filter` has, as it follows the filter; if anything is. */
export function filterDepthProblem(filter: string): string | undefined {
  return filter.split('/').length > maxFilterLevels ? `must have at most ${maxFilterLevels} levels` : undefined
}

/** What a rule's filter is made of: text, and places for who it is. `%%` is a `%`. */
export type RulePart = { readonly text: string } | { readonly placeholder: 'user' | 'client' }

/** Takes a rule's filter apart; `undefined` where a `%` is followed by something else than `u`, `c` or `%`. */
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

/** What is wrong with the filter of a rule, as it follows the filter; if anything is. */
export function ruleFilterProblem(filter: string): string | undefined {
  const parts = parseRuleFilter(filter)
  if (parts === undefined) return 'must have no other placeholders than %u (user) and %c (client id); a % itself is %%'
  const example = parts.map(part => ('text' in part ? part.text : 'x')).join('')
  // A shared subscription is another form of a subscription, and not a topic that somebody may have.
  if (/^\$share(\/|$)/.test(example)) return 'must be without $share/: the built-in broker has no shared subscriptions'
  return topicFilterProblem(example)
}
