import { regexProblem } from '../forms.js'

/** What may be escaped in a JavaScript regular expression with the `u` flag; PCRE takes a backslash before anything. */
const syntaxCharacter = /[$()*+./?[\\\]^{|}-]/

/** A PCRE as mod_websocket used it: it had to match from the start, but not to the end. */
export type Anchored = { readonly prefix: string } | { readonly source: string }

/**
 * Translates a pattern of mod_websocket.
 *
 * @returns the text that a match begins with, where the pattern is nothing else; else a JavaScript regular expression
 *   (`u` flag) that does the same; `undefined` where JavaScript has no such expression
 */
export function anchor(pcre: string): Anchored | undefined {
  const source = pcre.replaceAll(/\\(.)/gsu, (whole, escaped: string) => {
    if (/[A-Za-z0-9]/.test(escaped)) return whole
    // A slash needs none either: nothing here stands between slashes but origins, and those are not ended by one.
    return syntaxCharacter.test(escaped) && escaped !== '/' && escaped !== '-' ? whole : escaped
  })
  const body = source.replace(/^\^/, '')
  const literal = body.replaceAll(/\\([^A-Za-z0-9])/g, '$1')
  if (!/[$()*+?[\]^{|}.\\]/.test(body.replaceAll(/\\[^A-Za-z0-9]/g, ''))) return { prefix: literal }
  const anchored = hasAlternatives(source) ? `^(?:${source})` : `^${body}`
  return regexProblem(anchored) === undefined ? { source: anchored } : undefined
}

/** Whether there is a `|` outside all groups and classes, which an anchor in front would not reach across. */
function hasAlternatives(source: string): boolean {
  const outside = source.replaceAll(/\\./gsu, '').replaceAll(/\[[^\]]*\]/g, '')
  let depth = 0
  for (const character of outside) {
    if (character === '(') depth += 1
    else if (character === ')') depth -= 1
    else if (character === '|' && depth === 0) return true
  }
  return false
}

/** The regular expression that matches `text` and nothing else. */
export function escapeRegex(text: string): string {
  return text.replaceAll(/[$()*+.?[\\\]^{|}]/g, '\\$&')
}
