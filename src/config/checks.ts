import { relative, resolve } from 'node:path'
import { isWebUrl } from './access.js'
import { checkAccess } from './access-checks.js'
import { checkAcme } from './acme.js'
import { parseBrokerUrl } from './forms.js'
import {
  isAny,
  isLoopback,
  isMqttListener,
  isTlsListener,
  type Listener,
  listeners,
  publicListeners,
} from './listeners.js'
import { ruleName } from './notify.js'
import { fileTexts } from './options.js'
import { givenPaths } from './path-conditions.js'
import { listPrivateFiles, privateFilesInside } from './private-files.js'
import type { Problem } from './problems.js'
import { pushOf, redisOf } from './push.js'
import { readingProblem } from './reading.js'
import type { BrokerConfig, Config, UpstreamConfig } from './schema.js'

/*
 * Checks of several options together. Each check returns the problems that it finds; none depends on another's result.
 */

/** Where a configuration is used. */
export interface ConfigContext {
  /** The configuration file, if there is one. */
  readonly file: string | undefined
  /** The directory that relative paths start from. */
  readonly cwd: string
  /** Whether the gateway is attached to servers of another program, which may listen at any address. */
  readonly isAttached?: boolean
}

/** Returns all problems of a configuration that the schema accepts. */
export function checkConfig(config: Config, { file, cwd, isAttached = false }: ConfigContext): Problem[] {
  return [
    ...checkListeners(config, isAttached),
    ...checkProxyProtocol(config),
    ...checkExposure(config, isAttached),
    ...(isAttached ? checkAttached(config) : []),
    ...checkTunnels(config),
    ...checkHttps(config),
    ...checkAcme(config),
    ...checkFiles(config, cwd),
    ...checkPublic(config, file, cwd),
    ...upstreams(config).flatMap(([path, upstream]) => checkUpstream(path, upstream)),
    ...checkOwnPorts(config),
    ...checkAccess(config),
    ...checkNotify(config),
    ...checkSharedJournal(config),
    ...checkWorkers(config),
  ]
}

/** Whether one of the brokers is mqway's own MQTT port, so that mqway would connect to itself. */
export function leadsToItself(config: Config): boolean {
  return checkOwnPorts(config).length > 0
}

/** Whether two listeners have the same address. */
export function hasRivals(config: Config): boolean {
  return checkListeners(config).length > 0
}

function checkListeners(config: Config, isAttached = false): Problem[] {
  const open = listeners(config)
  const reads = ['http', 'https', 'mqtt', 'mqtts', 'host', 'broker', 'tunnels']
  if (open.length === 0 && !isAttached) {
    const message = 'leaves nothing to do, as https.port, mqtt.port and mqtts.port are off too'
    return [{ path: ['http', 'port'], message, reads }]
  }
  return open.flatMap((listener, index) => {
    const rival = open.slice(0, index).find(earlier => sameAddress(earlier, listener))
    if (!rival) return []
    return [{ path: [listener.name, 'port'], message: `is where ${rival.name}.port listens already`, reads }]
  })
}

function checkProxyProtocol(config: Config): Problem[] {
  const reads = ['http', 'https', 'mqtt', 'mqtts', 'trustedProxies']
  return listeners(config).flatMap(({ name, port }) => {
    if (!config[name].proxyProtocol) return []
    const path = [name, 'proxyProtocol']
    if (config.trustedProxies.length === 0) {
      return [{ path, message: 'needs the addresses of the proxies in trustedProxies', reads }]
    }
    if (typeof port === 'string' && isTlsListener(name)) {
      return [{ path, message: `is for TCP ports; ${name}.port is a Unix socket with TLS`, reads }]
    }
    return []
  })
}

function sameAddress(a: Listener, b: Listener): boolean {
  if (a.port !== b.port || a.port === 0) return false
  if (typeof a.port === 'string') return true
  return a.hosts.some(one => b.hosts.some(other => one === other || isAny(one) || isAny(other)))
}

function checkExposure(config: Config, isAttached: boolean): Problem[] {
  if (config.anonymous) return []
  if (config.access !== undefined) return checkThroughTraffic(config, isAttached)
  if (isAttached) {
    const message =
      'is not enough with a server of another program, which other machines may reach: configure "access", or use "anonymous: true" to admit everybody'
    return [{ path: ['anonymous'], message, reads: ['access'] }]
  }
  const exposed = new Map<string, Problem>()
  for (const { hostPath } of publicListeners(config)) {
    const message =
      'lets other machines connect without authentication: configure "access", or write "anonymous: true" into the configuration file to admit everybody, or listen on 127.0.0.1'
    exposed.set(hostPath.join('.'), { path: hostPath, message, reads: ['anonymous', 'access'] })
  }
  return [...exposed.values()]
}

/** With `access:`, connections to another broker are the only ones without authentication. */
function checkThroughTraffic(config: Config, isAttached: boolean): Problem[] {
  const open = publicListeners(config).map(listener => listener.name)
  const reads = ['host', 'http', 'https', 'mqtt', 'mqtts', 'broker', 'anonymous', 'access']
  const message = `lets other machines connect without authentication to a broker to which "access" does not apply`
  const web = isAttached || open.includes('http') || open.includes('https')
  const tunnels = config.tunnels.flatMap(({ broker, requireIdentity }, index): Problem[] => {
    if (!web || requireIdentity || (broker ?? config.broker) === 'embedded') return []
    const advice = 'write "requireIdentity: true" beside it, or "anonymous: true" into the configuration file'
    return [{ path: ['tunnels', index], message: `${message}: ${advice}`, reads }]
  })
  if (config.broker === 'embedded') return tunnels
  const advice = 'use off, or write "anonymous: true" into the configuration file'
  const ports = open.filter(isMqttListener)
  return [...tunnels, ...ports.map(name => ({ path: [name, 'port'], message: `${message}: ${advice}`, reads }))]
}

/** On a server of another program, only paths that are mqway's can be. */
function checkAttached({ public: pages, compat }: Config): Problem[] {
  const problems: Problem[] = []
  if (pages !== 'off') {
    problems.push({ path: ['public'], message: 'needs a port of mqway: on a server of another program, use off' })
  }
  for (const name of ['rrr', 'couchdb'] as const) {
    const section = compat[name]
    if (section === 'off' || section.prefix !== '/') continue
    const message = 'needs a port of mqway: on a server of another program, use a prefix such as'
    problems.push({ path: ['compat', name, 'prefix'], message: `${message} /${name}` })
  }
  return problems
}

function checkTunnels(config: Config): Problem[] {
  const seen = new Map<string, number>()
  return config.tunnels.flatMap((tunnel, index) => {
    const { path, pathPrefix, pathSuffix, pathPattern, hosts, ports } = tunnel
    const key = JSON.stringify([path?.replace(/(?<=.)\/$/, ''), pathPrefix, pathSuffix, pathPattern, hosts, ports])
    const earlier = seen.get(key)
    if (earlier === undefined) {
      seen.set(key, index)
      return []
    }
    return [{ path: ['tunnels', index, ...givenPaths(tunnel)], message: `is what tunnels[${earlier}] serves already` }]
  })
}

function checkHttps(config: Config): Problem[] {
  const { chain, cert } = config.https
  const alone: Problem[] =
    chain !== undefined && cert === undefined
      ? [{ path: ['https', 'chain'], message: 'needs cert beside it: the certificate that it leads on from' }]
      : []
  return [...checkPair(['https'], config.https), ...alone]
}

interface Credentials {
  readonly cert?: string | undefined
  readonly key?: string | undefined
}

function checkPair(path: readonly PropertyKey[], { cert, key }: Credentials): Problem[] {
  if (cert !== undefined && key === undefined) {
    return [{ path: [...path, 'cert'], message: 'needs key beside it: the file with its private key' }]
  }
  if (cert === undefined && key !== undefined) {
    return [{ path: [...path, 'key'], message: 'needs cert beside it: the file with its certificate' }]
  }
  return []
}

/** Files that options name. The data directory may be created later, and a missing sendmail program is only a warning. */
function checkFiles(config: Config, cwd: string): Problem[] {
  return fileTexts(config).flatMap(({ path, text }) => {
    if (['public', 'data', 'accessLog'].includes(String(path[0])) || path.at(-1) === 'sendmail') return []
    if (path.at(-1) === 'jwks' && isWebUrl(text)) return []
    const message = readingProblem(resolve(cwd, text), 'file')
    return message === undefined ? [] : [{ path, message }]
  })
}

function checkPublic(config: Config, file: string | undefined, cwd: string): Problem[] {
  if (config.public === undefined || config.public === 'off') return []
  const path = ['public']
  const directory = resolve(cwd, config.public)
  const problem = readingProblem(directory, 'directory')
  if (problem !== undefined) return [{ path, message: problem }]
  const own = privateFilesInside(directory, listPrivateFiles(config, file, cwd))
  if (own.length === 0) return []
  const names = own.map(({ name, path: ownPath }) => `${relative(cwd, ownPath) || '.'} (${name})`).join(', ')
  const message = `must be a directory without files of mqway itself, which would be public: ${names}. Move them, or the public files`
  const reads = ['access', 'accessLog', 'broker', 'data', 'http', 'https', 'mqtt', 'mqtts', 'notify', 'tunnels']
  return [{ path, message, reads }]
}

/** Every broker with its path: that of the configuration and those of its tunnels. */
function brokers(config: Config): [path: readonly PropertyKey[], broker: BrokerConfig][] {
  const own = config.tunnels.map((tunnel, index) => [['tunnels', index, 'broker'], tunnel.broker] as const)
  return [[['broker'], config.broker] as const, ...own].flatMap(([path, broker]) =>
    broker === undefined ? [] : [[path, broker]],
  )
}

function upstreams(config: Config): [path: readonly PropertyKey[], upstream: UpstreamConfig][] {
  return brokers(config).flatMap(([path, broker]) => (typeof broker === 'string' ? [] : [[path, broker]]))
}

/** The addresses of a broker; none for the embedded one. */
function urlsOf(broker: BrokerConfig): readonly string[] {
  const urls = typeof broker === 'string' ? broker : broker.url
  if (urls === 'embedded') return []
  return typeof urls === 'string' ? [urls] : urls
}

function checkUpstream(path: readonly PropertyKey[], upstream: UpstreamConfig): Problem[] {
  const tls = urlsOf(upstream).some(url => parseBrokerUrl(url)?.protocol === 'mqtts')
  const given = (['ca', 'cert', 'key', 'servername'] as const).filter(name => upstream[name] !== undefined)
  const useless = tls
    ? []
    : given.map(name => ({ path: [...path, name], message: 'needs a url that begins with mqtts://' }))
  return [...useless, ...checkPair(path, upstream)]
}

function checkOwnPorts(config: Config): Problem[] {
  const message = 'is where the broker listens: mqway would connect to itself. Use another port, or off'
  const reads = ['broker', 'tunnels', 'host']
  const urls = brokers(config).flatMap(([, broker]) => urlsOf(broker))
  return listeners(config)
    .filter(own => isMqttListener(own.name) && urls.some(url => isSelf(url, own)))
    .map(({ name }) => ({ path: [name, 'port'], message, reads }))
}

function isSelf(url: string, own: Listener): boolean {
  const address = parseBrokerUrl(url)
  if (!address) return false
  if (address.protocol === 'unix' || typeof own.port === 'string') return own.port === url
  if (address.port !== own.port) return false
  const local = isLoopback(address.host) || isAny(address.host)
  return own.hosts.some(host => host === address.host || (local && (isLoopback(host) || isAny(host))))
}

/** Options that do not fit a journal that several gateways share. */
function checkSharedJournal({ push, broker }: Config): Problem[] {
  if (push === 'off' || redisOf(push) === undefined) return []
  const path = ['push', 'journal', 'redis']
  const problems: Problem[] = []
  if (broker === 'embedded') {
    const message =
      'needs another broker, which all gateways connect to: the embedded broker is one process. Name it as "broker", or use level'
    problems.push({ path, message, reads: ['broker'] })
  }
  return problems
}

/** Several processes need a broker and a journal outside of them; `auto` may be several on another machine. */
function checkWorkers(config: Config): Problem[] {
  if (config.workers === 1) return []
  const problem = (message: string, reads: readonly string[]): Problem => ({ path: ['workers'], message, reads })
  const brokers = [config.broker, ...config.tunnels.map(tunnel => tunnel.broker ?? config.broker)]
  if (brokers.includes('embedded')) {
    const message =
      'needs another broker, which all workers connect to: the embedded broker is one process. Name it as "broker", or use 1'
    return [problem(message, ['broker', 'tunnels'])]
  }
  const push = pushOf(config)
  if (push === undefined || push.journal === 'redis') return []
  const message = `needs push.journal.redis, the journal that all workers share: ${push.journal} is for one process. Use that, push: off, or 1`
  return [problem(message, ['push', 'broker', 'data'])]
}

function checkNotify(config: Config): Problem[] {
  const { notify } = config
  if (notify === undefined) return []
  const problems: Problem[] = []
  if (pushOf(config) === undefined) {
    const message = 'needs push, the source of its messages'
    problems.push({ path: ['notify'], message, reads: ['push', 'broker'] })
  }
  const names = notify.rules.map(ruleName)
  for (const [index, name] of names.entries()) {
    if (names.indexOf(name) === index) continue
    problems.push({ path: ['notify', 'rules', index, 'name'], message: 'is the name of an earlier rule, too' })
  }
  return problems
}
