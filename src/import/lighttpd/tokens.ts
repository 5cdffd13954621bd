/** A position in a configuration file; line and column count from 1. */
export interface Position {
  readonly file: string
  readonly line: number
  readonly column: number
}

/** A text is not a valid lighttpd configuration. The message begins with `file:line:column`. */
export class LighttpdError extends Error {
  override readonly name = 'LighttpdError'
  readonly at: Position

  constructor(at: Position, message: string) {
    super(`${at.file}:${at.line}:${at.column}: ${message}`)
    this.at = at
  }
}

/** A token. `text` of a string is its value, without quotes and escapes. */
export interface Token {
  readonly kind: 'string' | 'integer' | 'name' | 'symbol' | 'end'
  readonly text: string
  readonly at: Position
}

const blank = /(?:[ \t\u00a0]+|#[^\r\n]*|\r\n|\r|\n)/y
const word = /(?<integer>\d+)|(?<name>[A-Za-z._-][\w.-]*)|(?<symbol>=[=~^$>]|![=~]|\+=|:=|[=+,(){}[\]$])/y

/**
 * Tokenizes a configuration; the last token is `end`.
 *
 * @throws {LighttpdError} at an unexpected character, or an unterminated string
 */
export function tokenize(text: string, file: string): Token[] {
  const tokens: Token[] = []
  let line = 1
  let lineStart = 0
  let offset = 0

  const here = (): Position => ({ file, line, column: offset - lineStart + 1 })
  const advance = (to: number) => {
    for (const newline of text.slice(offset, to).matchAll(/\r\n|\r|\n/g)) {
      line += 1
      lineStart = offset + newline.index + newline[0].length
    }
    offset = to
  }

  while (offset < text.length) {
    const at = here()
    if (text[offset] === '"') {
      const string = readString(text, offset)
      if (!string) throw new LighttpdError(at, 'this string has no closing "')
      tokens.push({ kind: 'string', text: string.value, at })
      advance(string.end)
      continue
    }
    const space = matchAt(blank, text, offset)
    const match = space ?? matchAt(word, text, offset)
    if (!match) throw new LighttpdError(at, `unexpected character ${JSON.stringify(text[offset])}`)
    if (!space) tokens.push({ kind: kindOf(match), text: match[0], at })
    advance(offset + match[0].length)
  }
  tokens.push({ kind: 'end', text: '', at: here() })
  return tokens
}

function matchAt(expression: RegExp, text: string, offset: number): RegExpExecArray | undefined {
  expression.lastIndex = offset
  return expression.exec(text) ?? undefined
}

function kindOf(match: RegExpExecArray): 'integer' | 'name' | 'symbol' {
  if (match.groups?.['integer'] !== undefined) return 'integer'
  return match.groups?.['name'] === undefined ? 'symbol' : 'name'
}

/** `\"` is the only escape; other backslashes are literal, as in regular expressions. */
function readString(text: string, start: number): { value: string; end: number } | undefined {
  for (let end = start + 1; end < text.length; end += 1) {
    if (text[end] === '"') return { value: text.slice(start + 1, end).replaceAll('\\"', '"'), end: end + 1 }
    if (text[end] === '\\' && text[end + 1] === '"') end += 1
  }
  return undefined
}
