import { z } from 'zod'
import { nearestName } from '../base/suggestion.js'
import { configSchema } from './schema.js'
import { fileFormat } from './values.js'

/** One row of the table of options, as the documentation and the error messages need it. */
export interface Option {
  /** Where it stands in the file: `https.port`, `tunnels[].origins`. */
  readonly path: string
  readonly description: string
  /** As a person writes it; `undefined` where leaving it out is something of its own. */
  readonly default: unknown
  /** Never shown: not by `mqway check`, not in an error. */
  readonly secret: boolean
  /** The name of a file or a directory. */
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

/** The paths of the options that name a file or a directory; some of them may be something else, such as a URL. */
export function fileOptions(): ReadonlySet<string> {
  return new Set(listOptions().flatMap(option => (option.file ? [option.path] : [])))
}

/** The paths of the options that are never shown. */
export function secretOptions(): ReadonlySet<string> {
  return new Set(listOptions().flatMap(option => (option.secret ? [option.path] : [])))
}

/** A path inside the configuration as `listOptions` writes it: every index as `[]`. */
export function optionPath(path: readonly PropertyKey[]): string {
  return displayPath(path).replaceAll(/\[\d+\]/g, '[]')
}

/** A path inside the configuration as a person reads it: `tunnels[0].origins`. */
export function displayPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`
    return text === '' ? String(key) : `${text}.${String(key)}`
  }, '')
}

/** The known option nearest to the unknown `key` in the mapping at `path`; `undefined` where none is near. */
export function nearestOption(path: readonly PropertyKey[], key: string): string | undefined {
  const prefix = path.length === 0 ? '' : `${optionPath(path)}.`
  const names = listOptions()
    .filter(option => option.path.startsWith(prefix))
    .map(option => option.path.slice(prefix.length))
    .filter(name => !/[.[]/.test(name))
  const nearest = nearestName(key, names)
  return nearest === undefined ? undefined : displayPath([...path, nearest])
}
