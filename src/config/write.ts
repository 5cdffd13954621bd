import { stringify } from 'yaml'
import { z } from 'zod'
import { optionPath, secretOptions } from './options.js'
import { type Config, configSchema } from './schema.js'
import { redacted, withoutQueryValues } from './values.js'

/**
 * Formats the configuration as a file, with all defaults. Secrets and queries of URLs are redacted; without any, the text loads as the same
 * configuration.
 */
export function writeConfig(config: Config): string {
  return stringify(encodeConfig(config), { lineWidth: 0, aliasDuplicateObjects: false })
}

/** The values of a configuration as in a file, with secrets and queries of URLs redacted. */
export function encodeConfig(config: Config): unknown {
  return redactSecrets(z.encode(configSchema, config), [], secretOptions())
}

function redactSecrets(value: unknown, path: readonly PropertyKey[], secrets: ReadonlySet<string>): unknown {
  if (secrets.has(optionPath(path))) return redacted
  if (Array.isArray(value)) return value.map((item, index) => redactSecrets(item, [...path, index], secrets))
  if (typeof value === 'string' && /^https?:/i.test(value)) return withoutQueryValues(value)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, redactSecrets(inner, [...path, key], secrets)]),
  )
}
