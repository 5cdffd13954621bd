import { LighttpdError, type Token, tokenize } from './tokens.js'

/** Maximum nesting of arrays and blocks. Real files stay below 5; the limit bounds the recursion. */
const maxNesting = 64

/** Reads the tokens of one configuration file in order. */
export class TokenReader {
  readonly #tokens: readonly Token[]
  #next = 0
  #depth = 0

  /** @throws {LighttpdError} as `tokenize` */
  constructor(text: string, file: string) {
    this.#tokens = tokenize(text, file)
  }

  /** The next token; `end` after the last one. */
  peek(): Token {
    const token = this.#tokens[this.#next] ?? this.#tokens.at(-1)
    if (!token) throw new Error('tokenize ends every list with an end token')
    return token
  }

  take(): Token {
    const token = this.peek()
    this.#next += 1
    return token
  }

  /** Whether the next token is this symbol. */
  is(symbol: string): boolean {
    const { kind, text } = this.peek()
    return kind === 'symbol' && text === symbol
  }

  /** Takes the next token if it is this symbol. */
  skip(symbol: string): boolean {
    const found = this.is(symbol)
    if (found) this.take()
    return found
  }

  expect(symbol: string): void {
    if (!this.skip(symbol)) this.fail(symbol)
  }

  /** Takes one of the symbols. */
  oneOf<T extends string>(symbols: readonly T[], expected: string): T {
    return symbols.find(symbol => this.skip(symbol)) ?? this.fail(expected)
  }

  word(kind: 'name' | 'string', expected: string): string {
    if (this.peek().kind !== kind) this.fail(expected)
    return this.take().text
  }

  /** Calls `read` for each item between two symbols. */
  between(open: string, close: string, read: () => void): void {
    this.#depth += 1
    if (this.#depth > maxNesting) throw new LighttpdError(this.peek().at, `more than ${maxNesting} levels of nesting`)
    this.expect(open)
    while (!this.skip(close)) {
      if (this.peek().kind === 'end') this.fail(close)
      read()
    }
    this.#depth -= 1
  }

  /** @throws {LighttpdError} with the expected and the next token */
  fail(expected: string): never {
    const { kind, text, at } = this.peek()
    const found = kind === 'end' ? 'the end of the file' : kind === 'string' ? JSON.stringify(text) : text
    throw new LighttpdError(at, `expected ${expected}, found ${found}`)
  }
}
