import { parseArgs } from 'node:util'
import { nearestName, suggestion } from '../base/suggestion.js'

/** A flag of the command line, and its environment variable. */
interface Flag {
  readonly name: string
  /** The path of the option that it sets; empty for `--config`. */
  readonly option: readonly string[]
  readonly value: string
  readonly help: string
}

/** Every flag, in the order of the help text. */
export const flags: readonly Flag[] = [
  { name: 'config', option: [], value: 'FILE', help: 'configuration file; ./mqway.yaml when there is one' },
  {
    name: 'broker',
    option: ['broker'],
    value: 'URL',
    help: 'embedded, mqtt://host:port, mqtts://host:port, unix:/path',
  },
  { name: 'host', option: ['host'], value: 'ADDRESS', help: 'where to listen: 127.0.0.1' },
  { name: 'http-port', option: ['http', 'port'], value: 'PORT', help: '8080, or off' },
  { name: 'https-port', option: ['https', 'port'], value: 'PORT', help: '8443, or off' },
  { name: 'mqtt-port', option: ['mqtt', 'port'], value: 'PORT', help: '1883, or off' },
  { name: 'cert', option: ['https', 'cert'], value: 'FILE', help: 'certificate chain (PEM)' },
  { name: 'key', option: ['https', 'key'], value: 'FILE', help: 'its private key (PEM)' },
  { name: 'public', option: ['public'], value: 'DIR', help: 'pages to serve instead of the built-in ones' },
  { name: 'data', option: ['data'], value: 'DIR', help: 'what the embedded broker keeps: ./data, or none' },
  {
    name: 'log-level',
    option: ['log', 'level'],
    value: 'LEVEL',
    help: 'trace, debug, info, warn, error, fatal, silent',
  },
  { name: 'log-format', option: ['log', 'format'], value: 'FORMAT', help: 'auto, pretty, json' },
]

const prefix = 'MQWAY_'

/** The environment variable of a flag: `MQWAY_HTTP_PORT` of `http-port`. */
export function variableOf(flag: string): string {
  return `${prefix}${flag.toUpperCase().replaceAll('-', '_')}`
}

/** The value of a flag or an environment variable. */
export interface Setting {
  readonly option: readonly string[]
  readonly text: string
  /** `--http-port` or `MQWAY_HTTP_PORT` */
  readonly source: string
}

interface Read {
  readonly settings: readonly Setting[]
  readonly problems: readonly string[]
}

/** Reads the command line, without the command. Later flags win over earlier ones. */
export function readFlags(argv: readonly string[]): Read {
  const byName = new Map(flags.map(flag => [flag.name, flag]))
  const { given, problems } = parseFlags(argv, [...byName.keys()], name => byName.get(name)?.value)
  return { settings: given.map(({ name, ...flag }) => ({ ...flag, option: byName.get(name)?.option ?? [] })), problems }
}

/** A flag on a command line; `source` is its name with dashes. */
export interface GivenFlag {
  readonly name: string
  readonly text: string
  readonly source: string
}

/**
 * Reads flags with values: `--name value` and `--name=value`.
 *
 * @param placeholderOf names the value of a flag in errors
 */
export function parseFlags(
  argv: readonly string[],
  names: readonly string[],
  placeholderOf: (name: string) => string | undefined = () => undefined,
): { readonly given: readonly GivenFlag[]; readonly problems: readonly string[] } {
  const given: GivenFlag[] = []
  const problems: string[] = []
  const options = Object.fromEntries(names.map(name => [name, { type: 'string' as const }]))
  const { tokens } = parseArgs({ args: [...argv], options, strict: false, allowPositionals: true, tokens: true })
  let afterUnknown = -1
  for (const token of tokens) {
    if (token.kind === 'positional') {
      // The value of an unknown flag is no second error. A URL may contain a password.
      const shown = /[:@]/.test(token.value) ? 'a value without an option' : token.value
      if (token.index !== afterUnknown) problems.push(`${shown}: is not expected here; options begin with --`)
    } else if (token.kind === 'option') {
      const { name, rawName: source, value: text } = token
      if (!names.includes(name)) {
        problems.push(`${source}: is not an option${suggestFlag(name, names)}`)
        afterUnknown = token.index + 1
      } else if (text === undefined || (!token.inlineValue && /^-./.test(text))) {
        const placeholder = placeholderOf(name)
        problems.push(`${source}: needs a value${placeholder === undefined ? '' : `: ${source} ${placeholder}`}`)
      } else given.push({ name, text, source })
    }
  }
  return { given, problems }
}

/** A command line is invalid; the message says what would be valid. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Reads the flags of a command with options of its own. @throws {UsageError} with the first problem */
export function requireFlags(argv: readonly string[], names: readonly string[]): readonly GivenFlag[] {
  const { given, problems } = parseFlags(argv, names)
  const [problem] = problems
  if (problem !== undefined) throw new UsageError(problem)
  return given
}

/** Reads the environment. An empty variable counts as unset, as `docker compose` passes unset variables. */
export function readEnvironment(env: NodeJS.ProcessEnv): Read {
  const settings: Setting[] = []
  const problems: string[] = []
  const known = new Map(flags.map(flag => [variableOf(flag.name), flag.option]))
  for (const [source, text] of Object.entries(env)) {
    if (!source.startsWith(prefix) || text === undefined || text === '') continue
    // Of `mqway supervisor`, if both are programs of one supervisord.
    if (source.startsWith('MQWAY_SUPERVISOR_')) continue
    const option = known.get(source)
    if (option) settings.push({ option, text, source })
    else problems.push(`${source}: is not a variable of mqway${suggestVariable(source)}`)
  }
  return { settings, problems }
}

/** The end of “--x: is not an option”. */
function suggestFlag(written: string, names: readonly string[]): string {
  const nearest = nearestName(written, names)
  return suggestion(nearest && `--${nearest}`, '; see mqway --help')
}

/** Compares names without their common prefix. */
function suggestVariable(source: string): string {
  const written = source.slice(prefix.length)
  const nearest = nearestName(
    written,
    flags.map(flag => variableOf(flag.name).slice(prefix.length)),
  )
  return suggestion(nearest && `${prefix}${nearest}`, '; see mqway --help')
}
