import { conditionText, negated, type Test } from './conditions.js'
import { type Expression, parse, type Statement } from './parser.js'
import type { Report } from './report.js'
import { shellIncludes } from './shell-includes.js'
import { LighttpdError, type Position } from './tokens.js'

/** The value of a directive. */
export type Value = string | number | List

/** An array of the language: a list, a mapping, or both at once. */
export class List {
  readonly entries: readonly Entry[]

  constructor(entries: readonly Entry[]) {
    this.entries = entries
  }

  /** The entry with this key, if there is one. */
  get(key: string): Entry | undefined {
    return this.entries.find(entry => entry.key === key)
  }
}

export interface Entry {
  readonly key: string | undefined
  readonly value: Value
  readonly at: Position
}

/** One directive with its value. */
export interface Setting {
  readonly name: string
  readonly value: Value
  /** The line that set it last. */
  readonly at: Position
  /** Every line that had a part in it: the first one, and each `+=`. */
  readonly lines: readonly Position[]
}

/** The settings of the whole server, or of one block. */
export type Settings = ReadonlyMap<string, Setting>

/** The directives that hold where all `tests` are true; none for the whole server. */
export interface Scope {
  readonly tests: readonly Test[]
  readonly settings: Settings
  readonly at: Position
}

/** An evaluated configuration. */
export interface Evaluated {
  readonly global: Scope
  /** The blocks, in the order in which lighttpd merges them: of two that hold for a request, the later one counts. */
  readonly blocks: readonly Scope[]
}

/** One file that an `include` names. */
export interface IncludedFile {
  readonly fileName: string
  readonly text: string
}

/** The files that `include "pattern"` names, in order; none if there are none. */
export type ReadInclude = (pattern: string) => readonly IncludedFile[]

/** Everything that a configuration reads besides its own text. */
export interface Surroundings {
  readonly readInclude: ReadInclude
  /** Variables of the environment (`env.NAME`). */
  readonly env: Readonly<Record<string, string | undefined>>
  /** The working directory (`var.CWD`). */
  readonly cwd: string
}

/** Includes of includes, and files in all: a file that includes itself ends here. */
const maxDepth = 16
const maxIncludes = 256

interface Block extends Scope {
  readonly settings: Map<string, Setting>
  readonly parent: Block | undefined
}

/** The conditions of a chain `… else …` so far, in one body. */
type Chain = readonly Test[]

/**
 * Parses and evaluates a configuration with its includes.
 *
 * @throws {LighttpdError} for a text that lighttpd would not accept, and for missing files
 */
export function evaluate(text: string, fileName: string, surroundings: Surroundings, report: Report): Evaluated {
  return new Evaluation(surroundings, report).run(text, fileName)
}

class Evaluation {
  readonly #surroundings: Surroundings
  readonly #report: Report
  /** By condition: a block that stands twice is one block, as in lighttpd. */
  readonly #blocks = new Map<string, Block>()
  #included = 0

  constructor(surroundings: Surroundings, report: Report) {
    this.#surroundings = surroundings
    this.#report = report
  }

  run(text: string, fileName: string): Evaluated {
    const at = { file: fileName, line: 1, column: 1 }
    const global: Block = { tests: [], settings: new Map(), parent: undefined, at }
    this.#execute(parse(text, fileName), global, 0)
    return { global, blocks: [...this.#blocks.values()] }
  }

  #execute(statements: readonly Statement[], scope: Block, depth: number): void {
    let chain: Chain = []
    for (const statement of statements) {
      if (statement.kind === 'block') {
        chain = this.#block(statement, statement.isElse ? chain : [], scope, depth)
        continue
      }
      chain = []
      switch (statement.kind) {
        case 'assign':
          this.#assign(statement, scope)
          break
        case 'include':
          this.#include(
            this.#text(statement.path, scope, 'include needs the name of a file'),
            statement.at,
            scope,
            depth,
          )
          break
        case 'include_shell':
          this.#includeShell(statement, scope, depth)
          break
        case 'global':
          this.#execute(statement.body, rootOf(scope), depth)
          break
        case 'stray':
          this.#report.note(statement.at, 'this } closes nothing: it is ignored, as in lighttpd')
          break
      }
    }
  }

  #assign({ name, operator, value, at }: Statement & { kind: 'assign' }, scope: Block): void {
    const own = scope.settings.get(name)
    // `lighttpd -p` prints the variables that it sets itself.
    if (operator === '=' && own && !isBuiltIn(name)) {
      throw new LighttpdError(at, `${name} is set already, in line ${own.at.line}; to replace it, write :=`)
    }
    const right = this.#value(value, scope)
    const left = operator === '+=' ? lookUp(scope, name) : undefined
    const sum = left === undefined ? right : add(left.value, right, at)
    scope.settings.set(name, { name, value: sum, at, lines: [...(left?.lines ?? []), at] })
  }

  #include(pattern: string, at: Position, scope: Block, depth: number): void {
    if (depth >= maxDepth) throw new LighttpdError(at, `more than ${maxDepth} includes inside each other`)
    const files = this.#surroundings.readInclude(pattern)
    if (files.length === 0 && !/[*?[{]/.test(pattern)) {
      throw new LighttpdError(at, `include "${pattern}": there is no such file, and it may deny what this one allows`)
    }
    for (const { fileName, text } of files) {
      this.#included += 1
      if (this.#included > maxIncludes) throw new LighttpdError(at, `more than ${maxIncludes} files are included`)
      this.#execute(parse(text, fileName), scope, depth + 1)
    }
  }

  #includeShell({ command, at }: Statement & { kind: 'include_shell' }, scope: Block, depth: number): void {
    const text = this.#text(command, scope, 'include_shell needs a command')
    const known = shellIncludes(text)
    if (known === undefined) {
      throw new LighttpdError(
        at,
        `include_shell ${JSON.stringify(text)}: mqway runs no programs to be configured, and this one may deny what the file allows; ` +
          'run lighttpd -p -f on the file that is named here, and import what it prints',
      )
    }
    for (const pattern of known.files) this.#include(pattern, at, scope, depth)
    if (known.text !== undefined) this.#execute(parse(known.text, at.file), rootOf(scope), depth + 1)
  }

  /** Returns the chain with this block's condition, for an `else` that follows. */
  #block({ condition, body, at }: Statement & { kind: 'block' }, chain: Chain, parent: Block, depth: number): Chain {
    const test = condition && {
      subject: condition.subject,
      operator: condition.operator,
      value: this.#text(condition.value, parent, 'a condition compares with a text'),
    }
    const own = [...chain.map(negated), ...(test ? [test] : [])]
    const tests = [...parent.tests, ...own]
    const key = conditionText(tests)
    const block = this.#blocks.get(key) ?? { tests, settings: new Map<string, Setting>(), parent, at }
    this.#blocks.set(key, block)
    this.#execute(body, block, depth)
    return test ? [...chain, test] : []
  }

  #text(expression: Expression, scope: Block, problem: string): string {
    const value = this.#value(expression, scope)
    if (value instanceof List) throw new LighttpdError(expression.at, problem)
    return String(value)
  }

  #value(expression: Expression, scope: Block): Value {
    switch (expression.kind) {
      case 'string':
      case 'integer':
        return expression.value
      case 'variable':
        return this.#variable(expression.name, expression.at, scope)
      case 'sum':
        return expression.terms
          .map(term => this.#value(term, scope))
          .reduce((left, right) => add(left, right, expression.at))
      case 'array':
        return this.#list(expression.elements, scope)
    }
  }

  #list(elements: Extract<Expression, { kind: 'array' }>['elements'], scope: Block): List {
    const entries = elements.map(({ key, value }): Entry => {
      const name = key && this.#value(key, scope)
      if (key && typeof name !== 'string') throw new LighttpdError(key.at, 'a key must be text')
      return {
        key: typeof name === 'string' ? name : undefined,
        value: this.#value(value, scope),
        at: key?.at ?? value.at,
      }
    })
    return makeList(entries)
  }

  #variable(name: string, at: Position, scope: Block): Value {
    const known = lookUp(scope, name)
    if (known) return known.value
    if (name === 'var.cwd') return this.#surroundings.cwd
    // The process id is unknown before the start.
    if (name === 'var.pid') return 0
    const fromEnvironment = name.startsWith('env.') ? this.#surroundings.env[name.slice('env.'.length)] : undefined
    if (fromEnvironment !== undefined) return fromEnvironment
    throw new LighttpdError(at, `${name} is not set; lighttpd would not start either`)
  }
}

function isBuiltIn(name: string): boolean {
  return name === 'var.cwd' || name === 'var.pid'
}

function rootOf(scope: Block): Block {
  return scope.parent ? rootOf(scope.parent) : scope
}

function lookUp(scope: Block | undefined, name: string): Setting | undefined {
  return scope && (scope.settings.get(name) ?? lookUp(scope.parent, name))
}

/** Maximum size of a value, in characters or entries: `x := x + x` doubles it with every line. */
const maxValue = 65_536

/** `+`: texts and numbers are joined, two numbers are added, lists are joined too. */
function add(left: Value, right: Value, at: Position): Value {
  if (left instanceof List && right instanceof List) return makeList([...left.entries, ...right.entries])
  if (left instanceof List || right instanceof List) throw new LighttpdError(at, 'a list can only be added to a list')
  if (typeof left === 'number' && typeof right === 'number') return left + right
  const text = `${left}${right}`
  if (text.length > maxValue) throw new LighttpdError(at, `a text of more than ${maxValue} characters`)
  return text
}

function makeList(entries: readonly Entry[]): List {
  const keys = new Set<string>()
  for (const [index, { key, at }] of entries.entries()) {
    if (index >= maxValue) throw new LighttpdError(at, `a list of more than ${maxValue} entries`)
    if (key === undefined) continue
    if (keys.has(key)) throw new LighttpdError(at, `the key ${JSON.stringify(key)} stands twice in this list`)
    keys.add(key)
  }
  return new List(entries)
}

/** A text or a number as text; `undefined` for a list. */
export function textOf(value: Value | undefined): string | undefined {
  return value === undefined || value instanceof List ? undefined : String(value)
}

/** The texts of a list; the value itself where it is none. */
export function textsOf(value: Value): string[] {
  return value instanceof List ? value.entries.flatMap(entry => textOf(entry.value) ?? []) : [String(value)]
}
