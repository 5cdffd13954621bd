import { regexProblem } from '../../config/forms.js'

/** A PCRE of mod_websocket, which must match from the start, but not to the end. */
export type Anchored = { readonly prefix: string } | { readonly source: string }

/**
 * Translates a pattern of mod_websocket.
 *
 * @returns the prefix if the pattern is a literal; else an equivalent JavaScript regular expression (`u` flag); `undefined` if there is
 *   none
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
 * @returns the source of an equivalent JavaScript regular expression (`u` flag); `undefined` if there is none
 */
export function translatePcre(pcre: string): string | undefined {
  const source = javaScriptSource(pcre)
  return isSameExpression(source) ? source : undefined
}

/** The text that `source`, without anchors, matches; `undefined` if it is not a literal. */
export function literalOf(source: string): string | undefined {
  const isLiteral = !/[$()*+?[\]^{|}.\\]/.test(source.replaceAll(/\\[^A-Za-z0-9]/g, ''))
  return isLiteral ? source.replaceAll(/\\([^A-Za-z0-9])/g, '$1') : undefined
}

/** Whether `source` has the same meaning in JavaScript: `[[:alpha:]]` and verbs such as `(*UTF8)` have not. */
function isSameExpression(source: string): boolean {
  return regexProblem(source) === undefined && !/\[[:.=]|\(\*/.test(source)
}

/*
 * PCRE accepts a backslash before any character; JavaScript with the `u` flag only before letters, digits and syntax characters.
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

/** Whether `source` has a `|` outside all groups and classes: a leading anchor would apply to the first alternative only. */
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

/** The regular expression that matches `text` literally. */
export function escapeRegex(text: string): string {
  return text.replaceAll(/[$()*+.?[\\\]^{|}]/g, '\\$&')
}
