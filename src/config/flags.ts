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
  const settings: Setting[] = []
  const problems: string[] = []
  const options = Object.fromEntries(flags.map(flag => [flag.name, { type: 'string' as const }]))
  const { tokens } = parseArgs({ args: [...argv], options, strict: false, allowPositionals: true, tokens: true })
  let afterUnknown = -1
  for (const token of tokens) {
    if (token.kind === 'positional') {
      // The value of an unknown flag is no second error.
      if (token.index !== afterUnknown) problems.push(`${token.value}: is not expected here; options begin with --`)
    } else if (token.kind === 'option') {
      const flag = flags.find(candidate => candidate.name === token.name)
      const source = token.rawName
      if (flag === undefined) {
        const names = flags.map(candidate => candidate.name)
        problems.push(`${source}: is not an option${suggestFlag(token.name, names)}`)
        afterUnknown = token.index + 1
      } else if (token.value === undefined || (!token.inlineValue && /^-./.test(token.value))) {
        problems.push(`${source}: needs a value: ${source} ${flag.value}`)
      } else {
        settings.push({ option: flag.option, text: token.value, source })
      }
    }
  }
  return { settings, problems }
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
export function suggestFlag(written: string, names: readonly string[]): string {
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
