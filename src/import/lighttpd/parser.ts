import { LighttpdError, type Position, type Token, tokenize } from './tokens.js'

/** The right side of an assignment. */
export type Expression = { readonly at: Position } & (
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'integer'; readonly value: number }
  | { readonly kind: 'variable'; readonly name: string }
  | { readonly kind: 'array'; readonly elements: readonly Element[] }
  | { readonly kind: 'sum'; readonly terms: readonly Expression[] }
)

/** One element of an array, with its key where it has one. */
export interface Element {
  readonly key: Expression | undefined
  readonly value: Expression
}

/** The head of `$SERVER["socket"] == ":443" { … }`. */
export interface Condition {
  /** `$SERVER["socket"]` */
  readonly subject: string
  readonly operator: Comparison
  readonly value: Expression
}

export type Statement = { readonly at: Position } & (
  | {
      readonly kind: 'assign'
      readonly name: string
      readonly operator: '=' | '+=' | ':='
      readonly value: Expression
    }
  | { readonly kind: 'include'; readonly path: Expression }
  | { readonly kind: 'include_shell'; readonly command: Expression }
  /** `condition` is missing in an `else` without one; `isElse`: the block continues the chain of the block before it. */
  | {
      readonly kind: 'block'
      readonly condition: Condition | undefined
      readonly isElse: boolean
      readonly body: readonly Statement[]
    }
  | { readonly kind: 'global'; readonly body: readonly Statement[] }
  /** A `}` that closes nothing: lighttpd 1.4.69 takes it at the top level, and goes on. */
  | { readonly kind: 'stray' }
)

/** How deep arrays and blocks may be nested. Real files stay below 5; the limit keeps the recursion harmless. */
const deepest = 64

const assignments = ['=', '+=', ':='] as const
const comparisons = ['==', '!=', '=~', '!~', '=^', '=$'] as const
export type Comparison = (typeof comparisons)[number]

/**
 * Parses the configuration language of lighttpd 1.4.
 *
 * @throws {LighttpdError} at a syntax error, with the expected token
 */
export function parse(text: string, file: string): Statement[] {
  return new Parser(tokenize(text, file)).file()
}

class Parser {
  readonly #tokens: readonly Token[]
  #next = 0
  #depth = 0

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens
  }

  file(): Statement[] {
    const statements: Statement[] = []
    while (this.#peek().kind !== 'end') statements.push(this.#is('}') ? this.#stray() : this.#statement())
    return statements
  }

  #stray(): Statement {
    return { kind: 'stray', at: this.#take().at }
  }

  #statement(): Statement {
    const token = this.#peek()
    if (this.#is('$')) return this.#block(token.at, false)
    if (token.kind !== 'name') this.#fail('a directive such as server.port')
    this.#take()
    const { at } = token
    switch (token.text) {
      case 'include':
        return { kind: 'include', path: this.#expression(), at }
      case 'include_shell':
        return { kind: 'include_shell', command: this.#expression(), at }
      case 'if':
        return this.#block(at, false)
      case 'else':
      case 'elif':
      case 'elsif':
      case 'elseif':
        return this.#block(at, true)
    }
    // `lighttpd -p` prints the whole configuration as one block `config { … }`.
    if ((token.text === 'global' || token.text === 'config') && this.#is('{'))
      return { kind: 'global', body: this.#body(), at }
    const operator = assignments.find(symbol => this.#is(symbol)) ?? this.#fail(`= after ${token.text}`)
    this.#take()
    return { kind: 'assign', name: nameOf(token.text), operator, value: this.#expression(), at }
  }

  /** A condition and its body, or the body of a plain `else`; `at` is where the keyword in front of it stands. */
  #block(at: Position, isElse: boolean): Statement {
    if (this.#peek().kind === 'name' && this.#peek().text === 'if') this.#take()
    const condition = this.#is('$') ? this.#condition() : undefined
    return { kind: 'block', condition, isElse, body: this.#body(), at }
  }

  #condition(): Condition {
    this.#expect('$')
    const name = this.#word('name', 'SERVER, HTTP or the like after $')
    this.#expect('[')
    const field = this.#word('string', 'a name in quotes')
    this.#expect(']')
    const operator = comparisons.find(symbol => this.#is(symbol)) ?? this.#fail(`one of ${comparisons.join(' ')}`)
    this.#take()
    return { subject: `$${name}["${field}"]`, operator, value: this.#expression() }
  }

  #body(): Statement[] {
    return this.#nested(() => {
      this.#expect('{')
      const statements: Statement[] = []
      while (!this.#is('}')) {
        if (this.#peek().kind === 'end') this.#fail('}')
        statements.push(this.#statement())
      }
      this.#take()
      return statements
    })
  }

  #expression(): Expression {
    const first = this.#term()
    const terms = [first]
    while (this.#is('+')) {
      this.#take()
      terms.push(this.#term())
    }
    return terms.length === 1 ? first : { kind: 'sum', terms, at: first.at }
  }

  #term(): Expression {
    const { kind, text, at } = this.#peek()
    if (this.#is('(')) return { kind: 'array', elements: this.#elements(), at }
    if (kind === 'symbol' || kind === 'end') this.#fail('a value: "text", a number, a variable or a list ( … )')
    this.#take()
    if (kind === 'string') return { kind, value: text, at }
    if (kind === 'integer') return { kind, value: Number(text), at }
    return { kind: 'variable', name: nameOf(text), at }
  }

  #elements(): Element[] {
    return this.#nested(() => {
      this.#expect('(')
      const elements: Element[] = []
      while (!this.#is(')')) {
        const first = this.#expression()
        if (this.#is('=>')) {
          this.#take()
          elements.push({ key: first, value: this.#expression() })
        } else elements.push({ key: undefined, value: first })
        if (!this.#is(')') && !this.#is(',')) this.#fail(', or )')
        while (this.#is(',')) this.#take()
      }
      this.#take()
      return elements
    })
  }

  #nested<T>(read: () => T): T {
    this.#depth += 1
    if (this.#depth > deepest) throw new LighttpdError(this.#peek().at, `more than ${deepest} levels of nesting`)
    const result = read()
    this.#depth -= 1
    return result
  }

  #peek(): Token {
    const token = this.#tokens[this.#next] ?? this.#tokens.at(-1)
    if (!token) throw new Error('tokenize ends every list with an end token')
    return token
  }

  #take(): Token {
    const token = this.#peek()
    this.#next += 1
    return token
  }

  #is(symbol: string): boolean {
    const { kind, text } = this.#peek()
    return kind === 'symbol' && text === symbol
  }

  #expect(symbol: string): void {
    if (!this.#is(symbol)) this.#fail(symbol)
    this.#take()
  }

  #word(kind: 'name' | 'string', expected: string): string {
    if (this.#peek().kind !== kind) this.#fail(expected)
    return this.#take().text
  }

  #fail(expected: string): never {
    const { kind, text, at } = this.#peek()
    const found = kind === 'end' ? 'the end of the file' : kind === 'string' ? JSON.stringify(text) : text
    throw new LighttpdError(at, `expected ${expected}, found ${found}`)
  }
}

/** Names are the same in upper and lower case, but those of the environment; one without a dot is a variable: `x` is `var.x`. */
function nameOf(text: string): string {
  if (text.startsWith('env.')) return text
  const name = text.toLowerCase()
  return name.includes('.') ? name : `var.${name}`
}
