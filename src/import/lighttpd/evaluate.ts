import { comparisons, conditionText, negated, type Test } from './conditions.js'
import type { Report } from './report.js'
import { shellIncludes } from './shell-includes.js'
import { TokenReader } from './token-reader.js'
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
  /** Position of its last assignment. */
  readonly at: Position
  /** Positions of all its assignments: the first one, and each `+=`. */
  readonly lines: readonly Position[]
}

/** The settings of the whole server, or of one block. */
export type Settings = ReadonlyMap<string, Setting>

/** Directives under the conditions `tests`; none for the whole server. */
export interface Scope {
  readonly tests: readonly Test[]
  readonly settings: Settings
  readonly at: Position
}

/** An evaluated configuration. */
export interface Evaluated {
  readonly global: Scope
  /** The blocks in lighttpd's order: of two matching ones, the later one applies. */
  readonly blocks: readonly Scope[]
}

/** An included file. */
export interface IncludedFile {
  readonly fileName: string
  readonly text: string
}

/** Reads the files of `include "pattern"`, in order; none if there are none. */
export type ReadInclude = (pattern: string) => readonly IncludedFile[]

/** The environment of a configuration. */
export interface Surroundings {
  readonly readInclude: ReadInclude
  /** Variables of the environment (`env.NAME`). */
  readonly env: Readonly<Record<string, string | undefined>>
  /** The working directory (`var.CWD`). */
  readonly cwd: string
}

/** Bounds of includes: nesting, and files in all. They also end a file that includes itself. */
const maxDepth = 16
const maxIncludes = 256

const assignments = ['=', '+=', ':='] as const

interface Block extends Scope {
  readonly settings: Map<string, Setting>
  readonly parent: Block | undefined
}

/** The conditions of a chain `… else …` so far, in one body. */
type Chain = readonly Test[]

/** The state of an evaluation that all of its files share. */
interface Evaluation {
  readonly surroundings: Surroundings
  readonly report: Report
  /** By condition: a block that stands twice is one block, as in lighttpd. */
  readonly blocks: Map<string, Block>
  included: number
}

/**
 * Parses and evaluates a configuration with its includes.
 *
 * @throws {LighttpdError} for a text that lighttpd would not accept, and for missing files
 */
export function evaluate(text: string, fileName: string, surroundings: Surroundings, report: Report): Evaluated {
  const evaluation: Evaluation = { surroundings, report, blocks: new Map(), included: 0 }
  const at = { file: fileName, line: 1, column: 1 }
  const global: Block = { tests: [], settings: new Map(), parent: undefined, at }
  new FileEvaluation(evaluation, text, fileName, 0).run(global)
  return { global, blocks: [...evaluation.blocks.values()] }
}

/** Evaluates one file of lighttpd 1.4's configuration language while it is parsed. */
class FileEvaluation {
  readonly #evaluation: Evaluation
  readonly #reader: TokenReader
  /** Includes around this file. */
  readonly #depth: number

  constructor(evaluation: Evaluation, text: string, file: string, depth: number) {
    this.#evaluation = evaluation
    this.#reader = new TokenReader(text, file)
    this.#depth = depth
  }

  run(scope: Block): void {
    const reader = this.#reader
    let chain: Chain = []
    while (reader.peek().kind !== 'end') {
      const { at } = reader.peek()
      if (reader.skip('}')) {
        // lighttpd 1.4.69 accepts it at the top level.
        this.#evaluation.report.note(at, 'this } closes nothing: it is ignored, as in lighttpd')
        chain = []
      } else chain = this.#statement(scope, chain)
    }
  }

  #body(scope: Block): void {
    let chain: Chain = []
    this.#reader.between('{', '}', () => {
      chain = this.#statement(scope, chain)
    })
  }

  /** @returns the chain for an `else` that follows */
  #statement(scope: Block, chain: Chain): Chain {
    const reader = this.#reader
    const { kind, text, at } = reader.peek()
    if (reader.is('$')) return this.#block(at, [], scope)
    if (kind !== 'name') reader.fail('a directive such as server.port')
    reader.take()
    switch (text) {
      case 'if':
        return this.#block(at, [], scope)
      case 'else':
      case 'elif':
      case 'elsif':
      case 'elseif':
        return this.#block(at, chain, scope)
      case 'include':
        this.#include(this.#text(scope, 'include needs the name of a file'), at, scope)
        return []
      case 'include_shell':
        this.#includeShell(this.#text(scope, 'include_shell needs a command'), at, scope)
        return []
    }
    // `lighttpd -p` prints the whole configuration as one block `config { … }`.
    if ((text === 'global' || text === 'config') && reader.is('{')) this.#body(rootOf(scope))
    else this.#assign(text, at, scope)
    return []
  }

  #assign(text: string, at: Position, scope: Block): void {
    const operator = this.#reader.oneOf(assignments, `= after ${text}`)
    const name = nameOf(text)
    const own = scope.settings.get(name)
    // `lighttpd -p` prints the variables that it sets itself.
    if (operator === '=' && own && !isBuiltIn(name)) {
      throw new LighttpdError(at, `${name} is set already, in line ${own.at.line}; to replace it, write :=`)
    }
    const { value: right } = this.#expression(scope)
    const left = operator === '+=' ? lookUp(scope, name) : undefined
    const value = left === undefined ? right : add(left.value, right, at)
    scope.settings.set(name, { name, value, at, lines: [...(left?.lines ?? []), at] })
  }

  #include(pattern: string, at: Position, scope: Block): void {
    if (this.#depth >= maxDepth) throw new LighttpdError(at, `more than ${maxDepth} includes inside each other`)
    const evaluation = this.#evaluation
    const files = evaluation.surroundings.readInclude(pattern)
    if (files.length === 0 && !/[*?[{]/.test(pattern)) {
      throw new LighttpdError(at, `include "${pattern}": there is no such file, and it may deny what this one allows`)
    }
    for (const { fileName, text } of files) {
      evaluation.included += 1
      if (evaluation.included > maxIncludes) throw new LighttpdError(at, `more than ${maxIncludes} files are included`)
      new FileEvaluation(evaluation, text, fileName, this.#depth + 1).run(scope)
    }
  }

  #includeShell(command: string, at: Position, scope: Block): void {
    const known = shellIncludes(command)
    if (known === undefined) {
      throw new LighttpdError(
        at,
        `include_shell ${JSON.stringify(command)}: mqway runs no programs to be configured, and this one may deny what the file allows; ` +
          'run lighttpd -p -f on the file that is named here, and import what it prints',
      )
    }
    for (const pattern of known.files) this.#include(pattern, at, scope)
    if (known.text === undefined) return
    new FileEvaluation(this.#evaluation, known.text, at.file, this.#depth + 1).run(rootOf(scope))
  }

  /** A condition and its body, or the body of a plain `else`. @param at the position of its first token */
  #block(at: Position, chain: Chain, parent: Block): Chain {
    const reader = this.#reader
    if (reader.peek().kind === 'name' && reader.peek().text === 'if') reader.take()
    const test = reader.skip('$') ? this.#condition(parent) : undefined
    const tests = [...parent.tests, ...chain.map(negated), ...(test ? [test] : [])]
    const { blocks } = this.#evaluation
    const key = conditionText(tests)
    const block = blocks.get(key) ?? { tests, settings: new Map<string, Setting>(), parent, at }
    blocks.set(key, block)
    this.#body(block)
    return test ? [...chain, test] : []
  }

  #condition(scope: Block): Test {
    const reader = this.#reader
    const name = reader.word('name', 'SERVER, HTTP or the like after $')
    reader.expect('[')
    const field = reader.word('string', 'a name in quotes')
    reader.expect(']')
    const operator = reader.oneOf(comparisons, `one of ${comparisons.join(' ')}`)
    return { subject: `$${name}["${field}"]`, operator, value: this.#text(scope, 'a condition compares with a text') }
  }

  #text(scope: Block, problem: string): string {
    const { value, at } = this.#expression(scope)
    if (value instanceof List) throw new LighttpdError(at, problem)
    return String(value)
  }

  #expression(scope: Block): Located {
    const { at } = this.#reader.peek()
    let value = this.#term(scope)
    while (this.#reader.skip('+')) value = add(value, this.#term(scope), at)
    return { value, at }
  }

  #term(scope: Block): Value {
    const { kind, text, at } = this.#reader.peek()
    if (this.#reader.is('(')) return this.#list(scope)
    if (kind === 'symbol' || kind === 'end') {
      this.#reader.fail('a value: "text", a number, a variable or a list ( … )')
    }
    this.#reader.take()
    if (kind === 'string') return text
    return kind === 'integer' ? Number(text) : this.#variable(nameOf(text), at, scope)
  }

  #list(scope: Block): List {
    const reader = this.#reader
    const entries: Entry[] = []
    reader.between('(', ')', () => {
      const { value: first, at } = this.#expression(scope)
      if (reader.skip('=>')) {
        if (typeof first !== 'string') throw new LighttpdError(at, 'a key must be text')
        entries.push({ key: first, value: this.#expression(scope).value, at })
      } else entries.push({ key: undefined, value: first, at })
      if (!reader.is(')') && !reader.is(',')) reader.fail(', or )')
      while (reader.skip(','));
    })
    return makeList(entries)
  }

  #variable(name: string, at: Position, scope: Block): Value {
    const { cwd, env } = this.#evaluation.surroundings
    const known = lookUp(scope, name)
    if (known) return known.value
    if (name === 'var.cwd') return cwd
    // The process id is unknown before the start.
    if (name === 'var.pid') return 0
    const fromEnvironment = name.startsWith('env.') ? env[name.slice('env.'.length)] : undefined
    if (fromEnvironment !== undefined) return fromEnvironment
    throw new LighttpdError(at, `${name} is not set; lighttpd would not start either`)
  }
}

/** A value with the position of its first token. */
interface Located {
  readonly value: Value
  readonly at: Position
}

/** Names are case-insensitive, except those of the environment; one without a dot is a variable: `x` is `var.x`. */
function nameOf(text: string): string {
  if (text.startsWith('env.')) return text
  const name = text.toLowerCase()
  return name.includes('.') ? name : `var.${name}`
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

/** Maximum size of a value, in characters or entries, because each `x := x + x` doubles it. */
const maxValue = 65_536

/** `+` adds two numbers, and concatenates texts and lists. */
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

/** The texts of a list, or the value itself. */
export function textsOf(value: Value): string[] {
  return value instanceof List ? value.entries.flatMap(entry => textOf(entry.value) ?? []) : [String(value)]
}
