import { z } from 'zod'
import { nearestName } from '../base/suggestion.js'
import { configSchema } from './schema.js'
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

/** Every option in the order of the schema, those of a mapping after the mapping itself. */
export function listOptions(): readonly Option[] {
  return below(jsonSchema(), '')
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

/** The paths of the options that name a file or a directory; some may be URLs instead. */
export function fileOptions(): ReadonlySet<string> {
  return new Set(listOptions().flatMap(option => (option.file ? [option.path] : [])))
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
