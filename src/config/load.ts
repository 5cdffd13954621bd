import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { type ConfigContext, checkConfig, hasRivals, leadsToItself } from './checks.js'
import { type ConfigFile, parseConfig, readConfigFile } from './file.js'
import { readEnvironment, readFlags, type Setting } from './flags.js'
import { ConfigError, describeIssue, formatProblem, type Problem, schemaProblems, valueAt } from './problems.js'
import { type Config, configSchema, type ParsedConfig } from './schema.js'

export { ConfigError } from './problems.js'

/** The sources of a configuration. */
export interface LoadOptions {
  /** The command line, without the program and the command. */
  readonly argv: readonly string[]
  readonly env: NodeJS.ProcessEnv
  /** The directory that relative paths start from, and where `mqway.yaml` may be. */
  readonly cwd: string
}

/** An option that has another name now. */
export interface RenamedOption {
  readonly former: readonly string[]
  readonly current: readonly string[]
}

/** A valid configuration. */
export interface LoadedConfig {
  /** Complete, and deeply frozen. */
  readonly config: Config
  /** The path of the configuration file as given; `undefined` if there is none. */
  readonly file: string | undefined
  /** Options that the file has under their former names. */
  readonly renamed: readonly RenamedOption[]
}

const defaultFile = 'mqway.yaml'

/**
 * Loads the configuration. Flags override the environment, which overrides the file, which overrides defaults.
 *
 * @throws {ConfigError} with all problems: of the syntax, of each option, and of options together
 */
export function loadConfig({ argv, env, cwd }: LoadOptions): LoadedConfig {
  const fromFlags = readFlags(argv)
  const fromEnvironment = readEnvironment(env)
  const settings = [...fromEnvironment.settings, ...fromFlags.settings]
  const named = settings.findLast(setting => setting.option.length === 0)?.text
  const name = named ?? (existsSync(resolve(cwd, defaultFile)) ? defaultFile : undefined)
  const file = name === undefined ? parseConfig('', defaultFile) : readConfigFile(resolve(cwd, name), name)

  const { input: given, sources } = applySettings(file.input, settings)
  const { input, renamed, problems: doubles } = useCurrentNames(given)
  const locate = (path: readonly PropertyKey[]) => {
    const { former = path } = renamed.find(({ current }) => current.every((key, index) => path[index] === key)) ?? {}
    return sourceOf(former, sources, name === undefined ? undefined : file)
  }
  const { config, problems: found } = validate(input, { file: name, cwd })
  const problems = [...doubles, ...found]
  const lines = problems.map(({ problem, value }) => formatProblem(problem, value, locate(problem.path)))
  const all = [...fromFlags.problems, ...fromEnvironment.problems, ...file.problems, ...lines]
  if (all.length > 0) throw new ConfigError(all)
  return { config: deepFreeze(config), file: name, renamed }
}

/** Options that are off, unless they are given, where a gateway is attached to servers of another program. */
const attachedDefaults = { http: { port: 'off' }, https: { port: 'off' }, mqtt: { port: 'off' }, public: 'off' }

/**
 * Validates a configuration that a program gives as an object, with the keys and values of the file. Flags and the environment are not read, and no file.
 *
 * @throws {ConfigError} with all problems
 */
export function configOf(given: unknown, place: Omit<ConfigContext, 'file'>): LoadedConfig {
  if (!isMapping(given)) throw new ConfigError(['the configuration must be an object'])
  const { input: current, renamed, problems: doubles } = useCurrentNames(given)
  const input = place.isAttached ? withDefaults(current, attachedDefaults) : current
  const { config, problems: found } = validate(input, { ...place, file: undefined })
  const problems = [...doubles, ...found]
  if (config.workers !== 1) {
    const message = 'needs the program mqway: a library is one process. Use 1'
    problems.push({ problem: { path: ['workers'], message }, value: config.workers })
  }
  if (problems.length > 0) {
    throw new ConfigError(problems.map(({ problem, value }) => formatProblem(problem, value, undefined)))
  }
  return { config: deepFreeze(config), file: undefined, renamed }
}

type Mapping = Record<string, unknown>

/** Adds what `input` does not have, also within its mappings. */
function withDefaults(input: Mapping, defaults: Mapping): Mapping {
  const added = Object.entries(defaults).map(([key, value]) => {
    const own = input[key]
    if (own === undefined) return [key, value]
    return [key, isMapping(own) && isMapping(value) ? { ...value, ...own } : own]
  })
  return { ...input, ...Object.fromEntries(added) }
}

/** Applies `settings` to the file's input, in order. */
function applySettings(fileInput: Mapping, settings: readonly Setting[]): { input: Mapping; sources: Setting[] } {
  const input = structuredClone(fileInput)
  const sources = settings.filter(setting => setting.option.length > 0)
  for (const { option, text } of sources) {
    const [first = '', second] = option
    if (first === 'broker') input['broker'] = mergeBroker(fileInput['broker'], text)
    else if (second === undefined) input[first] = text
    else {
      const section = input[first] ?? {}
      // The schema refuses a section that is no mapping.
      if (isMapping(section)) input[first] = { ...section, [second]: second === 'port' ? readPort(text) : text }
    }
  }
  return { input, sources }
}

/**
 * Applies a broker URL from a flag or the environment to the file's broker.
 *
 * The URL completes a mapping without one. A mapping with a URL describes another broker, whose password, certificates and PROXY protocol
 * must not be used for this one: only `connectTimeout` and `balance` are kept.
 */
function mergeBroker(fileBroker: unknown, url: string): unknown {
  if (url === 'embedded' || !isMapping(fileBroker)) return url
  if (fileBroker['url'] === undefined) return { ...fileBroker, url }
  const kept = Object.entries(fileBroker).filter(([key]) => key === 'connectTimeout' || key === 'balance')
  return kept.length === 0 ? url : { ...Object.fromEntries(kept), url }
}

function readPort(text: string): number | string {
  return /^\d+$/.test(text) ? Number(text) : text
}

function sourceOf(path: readonly PropertyKey[], sources: readonly Setting[], file: ConfigFile | undefined) {
  const setting = sources.findLast(({ option }) => option.every((key, index) => path[index] === key))
  return setting?.source ?? file?.locate(path)
}

/** Moves the limits of the built-in broker, which were keys of `mqtt`, to `embedded`. */
function useCurrentNames(input: Mapping): {
  readonly input: Mapping
  readonly renamed: readonly RenamedOption[]
  readonly problems: readonly FoundProblem[]
} {
  const { mqtt, embedded = {} } = input
  if (!isMapping(mqtt) || !isMapping(embedded)) return { input, renamed: [], problems: [] }
  const keys = Object.keys(mqtt).filter(key => key in configSchema.shape.embedded.unwrap().shape)
  if (keys.length === 0) return { input, renamed: [], problems: [] }
  const problems = keys
    .filter(key => key in embedded)
    .map(key => ({
      problem: { path: ['embedded', key], message: `is also given under its former name, mqtt.${key}` },
      value: embedded[key],
    }))
  const others = Object.entries(mqtt).filter(([key]) => !keys.includes(key))
  const moved = Object.fromEntries(keys.map(key => [key, mqtt[key]]))
  return {
    input: { ...input, mqtt: Object.fromEntries(others), embedded: { ...moved, ...embedded } },
    renamed: keys.map(key => ({ former: ['mqtt', key], current: ['embedded', key] })),
    problems,
  }
}

interface FoundProblem {
  readonly problem: Problem
  /** The value as given, or the default. */
  readonly value: unknown
}

/** Validates the input. @returns the configuration, which may be used only without problems */
function validate(input: Mapping, place: ConfigContext): { config: Config; problems: FoundProblem[] } {
  const result = configSchema.safeParse(input, { error: describeIssue })
  const wrong = result.success ? [] : schemaProblems(result.error.issues, input)
  // Invalid sections get their defaults, so that the other options can still be checked together.
  const bad = new Set(wrong.map(problem => String(problem.path[0])))
  const rest = Object.fromEntries(Object.entries(input).filter(([key]) => !bad.has(key)))
  const config = resolveMqttPorts(result.success ? result.data : configSchema.parse(rest))
  const unfit = checkConfig(config, place).filter(
    ({ path, reads = [] }) => ![path[0], ...reads].some(key => bad.has(String(key))),
  )
  const problems = [
    ...wrong.map(problem => ({ problem, value: valueAt(input, problem.path) })),
    ...unfit.map(problem => ({ problem, value: valueAt(config, problem.path) })),
  ]
  return { config, problems }
}

const mqttPort = 1883
const mqttsPort = 8883

/** The default MQTT port is 1883, unless the broker listens there; for that of MQTT over TLS, see docs/decisions/0019. */
function resolveMqttPorts(parsed: ParsedConfig): Config {
  const withPorts = (port: Config['mqtt']['port'], tlsPort: Config['mqtts']['port']): Config => ({
    ...parsed,
    mqtt: { ...parsed.mqtt, port },
    mqtts: { ...parsed.mqtts, port: tlsPort },
  })
  const given = parsed.mqtts.port ?? 'off'
  const plain = parsed.mqtt.port ?? (leadsToItself(withPorts(mqttPort, 'off')) ? 'off' : mqttPort)
  const isUsual = plain === mqttPort && parsed.mqtt.host === undefined
  const hasCertificate = parsed.https.cert !== undefined || parsed.https.acme !== undefined
  const isOn = isUsual && parsed.broker === 'embedded' && hasCertificate
  if (parsed.mqtts.port !== undefined || !isOn) return withPorts(plain, given)
  const usual = withPorts(plain, mqttsPort)
  return leadsToItself(usual) || hasRivals(usual) ? withPorts(plain, 'off') : usual
}

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) deepFreeze(inner)
    Object.freeze(value)
  }
  return value
}
