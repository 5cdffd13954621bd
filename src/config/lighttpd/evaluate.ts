import { type Expression, parse, type Statement } from './parser.js'
import { LighttpdError, type Position } from './tokens.js'

/** What a directive is set to. */
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

/** One directive with its value, and where it was said last. */
export interface Setting {
  readonly name: string
  readonly value: Value
  readonly at: Position
}

/** The settings of the whole server, or of one block. */
export type Settings = ReadonlyMap<string, Setting>

/** A configuration with everything computed that can be, before anything is made of it. */
export interface Evaluated {
  readonly global: Settings
  /** The blocks `$SERVER["socket"] == "…"`, by that address. */
  readonly sockets: ReadonlyMap<string, { readonly settings: Settings; readonly at: Position }>
  /** Directives under any other condition. */
  readonly conditional: readonly { readonly setting: Setting; readonly condition: string }[]
  readonly warnings: readonly Warning[]
}

/** Something that a person should know about, with its line. */
export interface Warning {
  readonly file: string
  readonly line: number
  readonly message: string
}

/** One file that an `include` names. */
export interface IncludedFile {
  readonly fileName: string
  readonly text: string
}

/** The files that `include "pattern"` names, in order; none where there are none. */
export type ReadInclude = (pattern: string) => readonly IncludedFile[]

/** Includes of includes, and files in all: a file that includes itself ends here. */
const deepestInclude = 16
const mostIncludes = 256

interface Scope {
  /** How errors and warnings name the block; `undefined` for the whole server. */
  readonly condition: string | undefined
  /** The address, in a block `$SERVER["socket"] == "…"` that stands on its own. */
  readonly socket: string | undefined
  readonly settings: Map<string, Setting>
  readonly parent: Scope | undefined
  readonly at: Position
}

/**
 * Parses and computes a configuration, with its includes.
 *
 * @throws {LighttpdError} for a text that lighttpd could not make sense of either
 */
export function evaluate(text: string, fileName: string, readInclude: ReadInclude): Evaluated {
  return new Evaluation(readInclude).run(text, fileName)
}

class Evaluation {
  readonly #readInclude: ReadInclude
  readonly #warnings: Warning[] = []
  /** By condition: a block that stands twice is one block, as in lighttpd. */
  readonly #scopes = new Map<string, Scope>()
  #included = 0

  constructor(readInclude: ReadInclude) {
    this.#readInclude = readInclude
  }

  run(text: string, fileName: string): Evaluated {
    const at = { file: fileName, line: 1, column: 1 }
    const global: Scope = { condition: undefined, socket: undefined, settings: new Map(), parent: undefined, at }
    this.#execute(parse(text, fileName), global, 0)
    const scopes = [...this.#scopes.values()]
    return {
      global: global.settings,
      sockets: new Map(scopes.flatMap(scope => (scope.socket === undefined ? [] : [[scope.socket, scope]]))),
      conditional: scopes.flatMap(({ socket, condition, settings }) => {
        if (socket !== undefined || condition === undefined) return []
        return [...settings.values()].map(setting => ({ setting, condition }))
      }),
      warnings: this.#warnings,
    }
  }

  #execute(statements: readonly Statement[], scope: Scope, depth: number): void {
    for (const statement of statements) {
      switch (statement.kind) {
        case 'assign':
          this.#assign(statement, scope)
          break
        case 'include':
          this.#include(statement, scope, depth)
          break
        case 'include_shell':
          this.#warn(statement.at, 'include_shell is not carried over: mqway runs no programs to be configured')
          break
        case 'global':
          this.#execute(statement.body, rootOf(scope), depth)
          break
        case 'block':
          this.#execute(statement.body, this.#enter(statement, scope), depth)
          break
      }
    }
  }

  #assign({ name, operator, value, at }: Statement & { kind: 'assign' }, scope: Scope): void {
    const own = scope.settings.get(name)
    if (operator === '=' && own) {
      throw new LighttpdError(at, `${name} is set already, in line ${own.at.line}; to replace it, write :=`)
    }
    const right = this.#value(value, scope)
    const left = operator === '+=' ? lookUp(scope, name)?.value : undefined
    scope.settings.set(name, { name, value: left === undefined ? right : add(left, right, at), at })
  }

  #include({ path, at }: Statement & { kind: 'include' }, scope: Scope, depth: number): void {
    const pattern = this.#value(path, scope)
    if (typeof pattern !== 'string') throw new LighttpdError(at, 'include needs the name of a file')
    if (depth >= deepestInclude) throw new LighttpdError(at, `more than ${deepestInclude} includes inside each other`)
    const files = this.#readInclude(pattern)
    if (files.length === 0) this.#warn(at, `include "${pattern}" is not carried over: there is no such file`)
    for (const { fileName, text } of files) {
      this.#included += 1
      if (this.#included > mostIncludes) throw new LighttpdError(at, `more than ${mostIncludes} files are included`)
      this.#execute(parse(text, fileName), scope, depth + 1)
    }
  }

  #enter({ condition, at }: Statement & { kind: 'block' }, parent: Scope): Scope {
    const value = condition && this.#value(condition.value, parent)
    const head = condition ? `${condition.subject} ${condition.operator} "${value}"` : 'else'
    const path = parent.condition === undefined ? head : `${parent.condition} and ${head}`
    // Every else is a block of its own, as it belongs to the blocks before it.
    const key = condition ? path : `${path} ${at.file}:${at.line}:${at.column}`
    const isSocket = condition?.subject === '$SERVER["socket"]' && condition.operator === '=='
    const socket = isSocket && parent.parent === undefined && typeof value === 'string' ? value : undefined
    const scope = this.#scopes.get(key) ?? { condition: path, socket, settings: new Map(), parent, at }
    this.#scopes.set(key, scope)
    return scope
  }

  #value(expression: Expression, scope: Scope): Value {
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

  #list(elements: Extract<Expression, { kind: 'array' }>['elements'], scope: Scope): List {
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

  #variable(name: string, at: Position, scope: Scope): Value {
    const known = lookUp(scope, name)
    if (known) return known.value
    this.#warn(at, `${name} is not known here: it counts as empty`)
    return ''
  }

  #warn(at: Position, message: string): void {
    this.#warnings.push({ file: at.file, line: at.line, message })
  }
}

function rootOf(scope: Scope): Scope {
  return scope.parent ? rootOf(scope.parent) : scope
}

function lookUp(scope: Scope | undefined, name: string): Setting | undefined {
  return scope && (scope.settings.get(name) ?? lookUp(scope.parent, name))
}

/** How large a value may grow, in characters or entries: `x := x + x` doubles with every line. */
const largestValue = 65_536

/** `+`: texts and numbers are joined, two numbers are added, lists are joined too. */
function add(left: Value, right: Value, at: Position): Value {
  if (left instanceof List && right instanceof List) return makeList([...left.entries, ...right.entries])
  if (left instanceof List || right instanceof List) throw new LighttpdError(at, 'a list can only be added to a list')
  if (typeof left === 'number' && typeof right === 'number') return left + right
  const text = `${left}${right}`
  if (text.length > largestValue) throw new LighttpdError(at, `a text of more than ${largestValue} characters`)
  return text
}

function makeList(entries: readonly Entry[]): List {
  const keys = new Set<string>()
  for (const [index, { key, at }] of entries.entries()) {
    if (index >= largestValue) throw new LighttpdError(at, `a list of more than ${largestValue} entries`)
    if (key === undefined) continue
    if (keys.has(key)) throw new LighttpdError(at, `the key ${JSON.stringify(key)} stands twice in this list`)
    keys.add(key)
  }
  return new List(entries)
}
