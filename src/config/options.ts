import { z } from 'zod'
import { nearestName } from '../base/suggestion.js'
import { type Config, configSchema } from './schema.js'
import { fileFormat } from './values.js'

/** An option, for documentation and errors. */
export interface Option {
  /** Its path in the file: `https.port`, `tunnels[].origins`. */
  readonly path: string
  readonly description: string
  /** In the syntax of the file; `undefined` for none. */
  readonly default: unknown
  /** Whether it is redacted by `mqway check` and in errors. */
  readonly secret: boolean
  /** Whether it names a file or a directory. */
  readonly file: boolean
}

type Node = z.core.JSONSchema.JSONSchema

/** The JSON Schema of the configuration file, for editors. */
export function jsonSchema(): Node {
  return { ...z.toJSONSchema(configSchema, { io: 'input', target: 'draft-7' }), title: 'mqway.yaml' }
}

let options: readonly Option[] | undefined

/** Every option in the order of the schema, those of a mapping after the mapping itself. Computed once, which takes some 30 ms. */
export function listOptions(): readonly Option[] {
  options ??= below(jsonSchema(), '')
  return options
}

function below(node: Node, path: string): Option[] {
  const found = new Map<string, Option>()
  const children = Object.entries(node.properties ?? {}).flatMap(([key, child]) => {
    if (typeof child === 'boolean') return []
    const name = path === '' ? key : `${path}.${key}`
    const { description = '', writeOnly = false, format } = child
    const option = { path: name, description, default: child.default, secret: writeOnly, file: format === fileFormat }
    return [option, ...below(child, name)]
  })
  const items = typeof node.items === 'object' && !Array.isArray(node.items) ? below(node.items, `${path}[]`) : []
  const branches = (node.anyOf ?? []).flatMap(branch => (typeof branch === 'boolean' ? [] : below(branch, path)))
  for (const option of [...children, ...items, ...branches]) found.set(option.path, option)
  return [...found.values()]
}

/** A text in a configuration. */
export interface ConfigText {
  readonly path: readonly PropertyKey[]
  readonly text: string
}

/** The values of all options that name a file or a directory; some may be URLs instead. */
export function fileTexts(config: Config): ConfigText[] {
  const files = new Set(listOptions().flatMap(option => (option.file ? [option.path] : [])))
  return textsIn(config).filter(({ path }) => files.has(optionPath(path)))
}

/** All texts in a tree of mappings and lists. */
export function textsIn(value: unknown, path: readonly PropertyKey[] = []): ConfigText[] {
  if (typeof value === 'string') return [{ path, text: value }]
  if (Array.isArray(value)) return value.flatMap((inner, index) => textsIn(inner, [...path, index]))
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => textsIn(inner, [...path, key]))
}

/** The paths of the secret options. */
export function secretOptions(): ReadonlySet<string> {
  return new Set(listOptions().flatMap(option => (option.secret ? [option.path] : [])))
}

/** Formats a path as in `listOptions`, with `[]` for each index. */
export function optionPath(path: readonly PropertyKey[]): string {
  return displayPath(path).replaceAll(/\[\d+\]/g, '[]')
}

/** Formats a path: `tunnels[0].origins`. */
export function displayPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`
    return text === '' ? String(key) : `${text}.${String(key)}`
  }, '')
}

/** The option nearest to the unknown `key` in the mapping at `path`; `undefined` if none is near. */
export function nearestOption(path: readonly PropertyKey[], key: string): string | undefined {
  const prefix = path.length === 0 ? '' : `${optionPath(path)}.`
  const names = listOptions()
    .filter(option => option.path.startsWith(prefix))
    .map(option => option.path.slice(prefix.length))
    .filter(name => !/[.[]/.test(name))
  const nearest = nearestName(key, names)
  return nearest === undefined ? undefined : displayPath([...path, nearest])
}
