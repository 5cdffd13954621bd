import { regexProblem } from '../../config/forms.js'

/** A PCRE as mod_websocket used it: it had to match from the start, but not to the end. */
export type Anchored = { readonly prefix: string } | { readonly source: string }

/**
 * Translates a pattern of mod_websocket.
 *
 * @returns the text that a match begins with, where the pattern is nothing else; else a JavaScript regular expression
 *   (`u` flag) that does the same; `undefined` where JavaScript has no such expression
 */
export function anchor(pcre: string): Anchored | undefined {
  const source = javaScriptSource(pcre)
  const body = source.replace(/^\^/, '')
  const literal = literalOf(body)
  if (literal !== undefined) return { prefix: literal }
  const anchored = hasAlternatives(source) ? `^(?:${source})` : `^${body}`
  return isSameExpression(anchored) ? { source: anchored } : undefined
}

/**
 * Translates a PCRE that may match anywhere, as in lighttpd's conditions.
 *
 * @returns the source of a JavaScript regular expression (`u` flag); `undefined` where JavaScript has none that means the same
 */
export function translatePcre(pcre: string): string | undefined {
  const source = javaScriptSource(pcre)
  return isSameExpression(source) ? source : undefined
}

/** The text that `source`, without anchors, stands for; `undefined` if it is more than a text. */
export function literalOf(source: string): string | undefined {
  const isLiteral = !/[$()*+?[\]^{|}.\\]/.test(source.replaceAll(/\\[^A-Za-z0-9]/g, ''))
  return isLiteral ? source.replaceAll(/\\([^A-Za-z0-9])/g, '$1') : undefined
}

/** Whether JavaScript takes `source` and means what PCRE means: `[[:alpha:]]` and verbs such as `(*UTF8)` are something else there. */
function isSameExpression(source: string): boolean {
  return regexProblem(source) === undefined && !/\[[:.=]|\(\*/.test(source)
}

/*
 * PCRE takes a backslash before anything, JavaScript with the `u` flag only if it changes something. Before letters and
 * digits it always does. A slash needs none: nothing here ends at one.
 */

function javaScriptSource(pcre: string): string {
  return pcre.replaceAll(/\[(?:\\.|[^\]\\])*\]|\\./gsu, part =>
    part.startsWith('[') ? part.replaceAll(/\\(.)/gsu, unescapeInClass) : unescapeOutside(part, part.slice(1)),
  )
}

function unescapeOutside(whole: string, escaped: string): string {
  return /[A-Za-z0-9$()*+.?[\\\]^{|}]/.test(escaped) ? whole : escaped
}

function unescapeInClass(whole: string, escaped: string): string {
  return escaped === '-' ? whole : unescapeOutside(whole, escaped)
}

/** Whether there is a `|` outside all groups and classes, which an anchor in front would not reach across. */
export function hasAlternatives(source: string): boolean {
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
