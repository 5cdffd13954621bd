import { isDeepStrictEqual } from 'node:util'
import { type ConfigContext, checkConfig } from './checks.js'
import type { LoadedConfig } from './load.js'
import { displayPath, optionPath, secretOptions } from './options.js'
import { ConfigError, formatProblem } from './problems.js'
import { filtersWithBounds, pushOf } from './push.js'
import type { Config } from './schema.js'
import { encodeConfig } from './write.js'

/** When a changed option takes effect: with a reload, or with the next start. */
export type Effect = 'reload' | 'restart'

/** An option that differs between two configurations. */
export interface ConfigChange {
  /** As in a file: `limits.connections`. A list is one option. */
  readonly option: string
  readonly effect: Effect
  /** The values in the syntax of a file, secrets redacted; left out where they are long. */
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/**
 * When each option takes effect. A name with `.*` is for everything below; another one is for this option alone. `test/config/changes.test.ts` demands
 * an entry for every option.
 */
const effects: Readonly<Record<string, Effect>> = {
  host: 'restart',
  // Whether there is access control at all: it decides which hosts and addresses are served.
  anonymous: 'restart',
  access: 'restart',
  'access.htpasswd': 'reload',
  'access.jwt': 'reload',
  'access.jwt.*': 'reload',
  'access.clientCertificates': 'restart',
  'access.clientCertificates.*': 'restart',
  'access.webhook': 'reload',
  'access.webhook.*': 'reload',
  'access.tickets.*': 'restart',
  'access.rules': 'reload',
  broker: 'restart',
  'broker.*': 'restart',
  'http.port': 'restart',
  'http.host': 'restart',
  'http.unixSocketMode': 'restart',
  'http.proxyProtocol': 'restart',
  'http.redirect': 'reload',
  'https.port': 'restart',
  'https.host': 'restart',
  'https.unixSocketMode': 'restart',
  'https.proxyProtocol': 'restart',
  'https.acme': 'restart',
  'https.acme.*': 'restart',
  'https.cert': 'reload',
  'https.key': 'reload',
  'https.chain': 'reload',
  'https.certificates': 'reload',
  'https.minVersion': 'reload',
  'mqtt.*': 'restart',
  'mqtts.*': 'restart',
  'embedded.*': 'restart',
  tunnels: 'reload',
  public: 'reload',
  index: 'reload',
  deny: 'reload',
  headers: 'reload',
  compression: 'reload',
  'compression.*': 'reload',
  accessLog: 'restart',
  'accessLog.*': 'restart',
  data: 'restart',
  push: 'restart',
  'push.topics': 'reload',
  'push.username': 'restart',
  'push.password': 'restart',
  'push.clientId': 'restart',
  'push.journal': 'restart',
  'push.journal.*': 'restart',
  'push.maxEvents': 'restart',
  'push.maxBytes': 'restart',
  'push.maxAge': 'restart',
  'push.maxSubscriptionsBytes': 'restart',
  'push.maxRetained': 'restart',
  'push.maxRetainedBytes': 'restart',
  'push.maxQueuedEvents': 'restart',
  'push.maxQueuedBytes': 'restart',
  'push.origins': 'reload',
  'push.jsonp': 'reload',
  'push.heartbeat': 'reload',
  'push.maxReceipts': 'restart',
  'push.receiptMessagesPerSecond': 'restart',
  'push.presence.*': 'restart',
  'push.clients.*': 'restart',
  'compat.*': 'restart',
  notify: 'reload',
  'notify.*': 'reload',
  hosts: 'reload',
  trustedProxies: 'reload',
  'limits.allow': 'reload',
  'limits.connections': 'reload',
  'limits.connectionsPerAddress': 'reload',
  // Options of the servers that listen.
  'limits.headerSize': 'restart',
  'limits.handshakeTimeout': 'restart',
  // Also of the built-in broker.
  'limits.connectTimeout': 'restart',
  'limits.connectSize': 'reload',
  'limits.closeTimeout': 'reload',
  'limits.connectionsPerUser': 'reload',
  'limits.upgradesPerSecond': 'reload',
  'limits.upgradesBurst': 'reload',
  'limits.publishesPerSecond': 'reload',
  'limits.publishesBurst': 'reload',
  'limits.anonymousPublishesPerSecond': 'reload',
  'limits.anonymousPublishesBurst': 'reload',
  'limits.anonymousPublishBytesPerSecond': 'reload',
  'limits.bytesPerSecond': 'reload',
  'limits.requestsPerSecond': 'reload',
  'limits.requestsBurst': 'reload',
  'limits.bodySize': 'reload',
  // Also of the servers that listen.
  'limits.bodyTimeout': 'restart',
  'limits.jsonValues': 'reload',
  'limits.urlLength': 'reload',
  // Also bounds of the built-in broker's sessions.
  'limits.topicLevels': 'restart',
  'limits.topicLength': 'restart',
  'metrics.allow': 'reload',
  'log.level': 'reload',
  'log.format': 'restart',
  control: 'restart',
  workers: 'restart',
  'shutdown.grace': 'reload',
}

/**
 * When an option takes effect.
 *
 * @param option its path without indexes, that of the list for a member of a list: `tunnels`
 * @returns `undefined` for an option without an entry
 */
export function effectOf(option: string): Effect | undefined {
  const exact = effects[option]
  if (exact !== undefined) return exact
  for (let end = option.lastIndexOf('.'); end > 0; end = option.lastIndexOf('.', end - 1)) {
    const below = effects[`${option.slice(0, end)}.*`]
    if (below !== undefined) return below
  }
  return undefined
}

/** The options in which two configurations differ, in the order of the schema. */
export function listChanges(from: Config, to: Config): ConfigChange[] {
  const [encodedFrom, encodedTo] = [encodeConfig(from), encodeConfig(to)]
  return changedPaths(from, to, []).map(path => {
    const option = displayPath(path)
    const shown = { from: show(valueAt(encodedFrom, path)), to: show(valueAt(encodedTo, path)) }
    const isSecret = secretOptions().has(optionPath(path))
    const isShown = !isSecret && shown.from.length + shown.to.length <= maxShown
    return { option, effect: effectOfChange(option, from, to), ...(isShown && shown) }
  })
}

/** `to`, with the options that take effect with a restart as they are in `from`. */
export function withoutRestart(from: Config, to: Config): Config {
  const result = structuredClone(to)
  for (const path of changedPaths(from, to, [])) {
    if (effectOfChange(displayPath(path), from, to) === 'reload') continue
    setAt(result, path, valueAt(from, path))
  }
  return result
}

/** The result of comparing two configurations. */
export interface ReloadPlan {
  readonly changes: readonly ConfigChange[]
  /** The configuration that is in effect afterwards. */
  readonly config: Config
}

/**
 * Compares the running configuration with one that was loaded.
 *
 * @throws {ConfigError} when what takes effect with a reload is valid only together with what needs a restart
 */
export function planReload(
  running: Config,
  { config: to, file }: LoadedConfig,
  place: Omit<ConfigContext, 'file'>,
): ReloadPlan {
  const config = withoutRestart(running, to)
  const changes = listChanges(running, to)
  const options = changes.filter(({ effect }) => effect === 'restart').map(({ option }) => option)
  const problems = checkConfig(config, { ...place, file }).map(problem => {
    const text = formatProblem(problem, valueAt(config, problem.path.map(String)), file)
    return `${text} (a reload leaves ${options.join(', ')} as before: restart instead)`
  })
  if (problems.length > 0) throw new ConfigError(problems)
  return { changes, config }
}

/** Characters of two values together. */
const maxShown = 80

function show(value: unknown): string {
  return value === undefined ? 'none' : typeof value === 'string' ? value : JSON.stringify(value)
}

function effectOfChange(option: string, from: Config, to: Config): Effect {
  // The shares of a journal are made when it is opened.
  const hasSameBounds = isDeepStrictEqual(filtersWithBounds(from.push), filtersWithBounds(to.push))
  const isPushSame = (pushOf(from) === undefined) === (pushOf(to) === undefined)
  if (option === 'push.topics' && !(hasSameBounds && isPushSame)) return 'restart'
  // The function for SNI is an option of a server.
  if (option === 'https.certificates' && from.https.certificates.length === 0) return 'restart'
  return effectOf(option) ?? 'restart'
}

type Path = readonly string[]

/** Goes into mappings that both have; lists are compared as a whole. */
function changedPaths(from: unknown, to: unknown, path: Path): Path[] {
  if (isDeepStrictEqual(from, to)) return []
  if (!isMapping(from) || !isMapping(to)) return [path]
  const keys = new Set([...Object.keys(from), ...Object.keys(to)])
  return [...keys].flatMap(key => changedPaths(from[key], to[key], [...path, key]))
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((inner, key) => (isMapping(inner) ? inner[key] : undefined), value)
}

function setAt(target: unknown, path: Path, value: unknown): void {
  const parent = valueAt(target, path.slice(0, -1))
  const key = path.at(-1)
  if (!isMapping(parent) || key === undefined) return
  if (value === undefined) delete parent[key]
  else parent[key] = value
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
