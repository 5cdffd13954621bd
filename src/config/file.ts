import { readFileSync } from 'node:fs'
import { isMap, isNode, isPair, isScalar, LineCounter, type Node, parseDocument } from 'yaml'

/** A parsed configuration file. */
export interface ConfigFile {
  /** Its content; an empty mapping for an empty file. */
  readonly input: Record<string, unknown>
  /** Syntax errors, one line each. */
  readonly problems: readonly string[]
  /** Returns `file:line` of the value at `path`, or of the nearest mapping around it. */
  locate(path: readonly PropertyKey[]): string
}

/** Maximum expansion of aliases (`*name`), against “billion laughs”. */
const maxAliasCount = 100

/**
 * Reads a YAML file.
 *
 * @param name of the file in errors
 */
export function readConfigFile(path: string, name: string): ConfigFile {
  try {
    return parseConfig(readFileSync(path, 'utf8'), name)
  } catch (error) {
    return { input: {}, problems: [`${name}: cannot be read: ${reason(error)}`], locate: () => name }
  }
}

/** Parses the text of a configuration file. @param name of the file in errors */
export function parseConfig(text: string, name: string): ConfigFile {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const problems = [...document.errors, ...document.warnings].map(error => {
    const { line, col } = lines.linePos(error.pos[0])
    return `${name}:${line}:${col}: is not valid YAML: ${firstLine(error.message)}`
  })
  const locate = (path: readonly PropertyKey[]) => {
    const offset = offsetOf(document.contents, path)
    return offset === undefined ? name : `${name}:${lines.linePos(offset).line}`
  }
  if (problems.length > 0) return { input: {}, problems, locate }
  try {
    const input: unknown = document.toJS({ maxAliasCount }) ?? {}
    if (isMapping(input)) return { input, problems, locate }
    return { input: {}, problems: [`${name}: must be a mapping of options, such as http: {port: 8080}`], locate }
  } catch (error) {
    return { input: {}, problems: [`${name}: is not valid YAML: ${reason(error)}`], locate }
  }
}

/** Offset of the key of the deepest part of `path` that exists, in characters. */
function offsetOf(root: Node | null, path: readonly PropertyKey[]): number | undefined {
  let node: unknown = root
  let offset: number | undefined
  for (const key of path) {
    const pair = isMap(node) ? node.items.find(item => isScalar(item.key) && item.key.value === key) : undefined
    const item = pair ?? (typeof key === 'number' && isNode(node) && 'items' in node ? node.items[key] : undefined)
    const start = isPair(item) ? item.key : item
    if (!isNode(start)) break
    offset = start.range?.[0] ?? offset
    node = isPair(item) ? item.value : item
  }
  return offset
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function reason(error: unknown): string {
  return error instanceof Error ? firstLine(error.message) : String(error)
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text
}
