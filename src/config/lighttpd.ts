import { isDeepStrictEqual } from 'node:util'
import { conditionText } from './lighttpd/conditions.js'
import { evaluate, List, type Scope, type Setting, type Surroundings, textOf, textsOf } from './lighttpd/evaluate.js'
import { readFiles } from './lighttpd/files.js'
import { chooseListeners, isForLoopback, minVersionOf, readSockets, type Socket } from './lighttpd/listeners.js'
import { readProtections } from './lighttpd/protections.js'
import { redirectsToHttps } from './lighttpd/redirects.js'
import { type Finding, Report } from './lighttpd/report.js'
import { LighttpdError, type Position } from './lighttpd/tokens.js'
import { readTunnels, type Tunnel, type TunnelsInput } from './lighttpd/tunnels.js'
import type { View } from './lighttpd/view.js'
import { type LeftOut, write } from './lighttpd/write.js'
import { describeIssue, formatProblem, schemaProblems, valueAt } from './problems.js'
import { type ConfigInput, configSchema } from './schema.js'

export type { IncludedFile, ReadInclude, Surroundings } from './lighttpd/evaluate.js'
export type { Finding } from './lighttpd/report.js'
export { LighttpdError } from './lighttpd/tokens.js'

/** Directives of lighttpd that mqway does without, and clients see no difference. */
const needless = new Set([
  'server.pid-file',
  'server.errorlog',
  'server.breakagelog',
  'server.upload-dirs',
  'server.name',
  'server.tag',
  'server.event-handler',
  'server.network-backend',
  'server.max-read-idle',
  'server.max-write-idle',
  'server.max-keep-alive-idle',
  'server.max-keep-alive-requests',
  'server.max-fds',
  'server.max-worker',
  'server.feature-flags',
  'server.http-parseopts',
  'server.compat-module-load',
  'server.stream-request-body',
  'server.stream-response-body',
  'server.systemd-socket-activation',
  'server.core-files',
  'server.follow-symlink',
  'mimetype.assign',
  'mimetype.use-xattr',
  'etag.use-inode',
  'etag.use-mtime',
  'etag.use-size',
  'websocket.debug',
  'wstunnel.debug',
  'ssl.use-sslv2',
  'ssl.use-sslv3',
])

/** Families of directives whose absence makes less available than lighttpd did, and nothing more. */
const lessAvailable = /^(dir-listing|dirlisting|deflate|compress|status|accesslog|expire|rrdtool|cml|trigger-b4-dl)\./

/** Modules whose directives are read here, or that add nothing to be missed. */
const knownModules = new Set(
  'websocket wstunnel openssl setenv indexfile staticfile access auth authn_file redirect extforward alias cgi fastcgi scgi proxy'
    .split(' ')
    .map(name => `mod_${name}`),
)

/** The mqway configuration that does what a lighttpd configuration did. */
export interface Imported {
  /** A complete configuration file. */
  readonly yaml: string
  /** Every difference, in the order of the lines. */
  readonly findings: readonly Finding[]
}

/**
 * Translates a `lighttpd.conf` with mod_websocket or mod_wstunnel into mqway's configuration file. The result is never more open than what it
 * replaces: whatever mqway has no words for is left out, with the reason beside it.
 *
 * Pure: `surroundings` has the files that an `include` names, the environment and the working directory.
 *
 * @throws {LighttpdError} for a text that lighttpd would not take, and for one without a tunnel, with file, line and column
 */
export function importLighttpd(
  text: string,
  { fileName, ...surroundings }: { readonly fileName: string } & Surroundings,
): Imported {
  const report = new Report()
  const evaluated = evaluate(text, fileName, surroundings, report)
  const taken = new Set<Setting>()
  const all = readSockets(evaluated, fileName, taken, report)
  const read = new Map(all.map(socket => [socket, readTunnels(socket.view, report)]))
  if ([...read.values()].every(tunnels => tunnels.length === 0)) throw noTunnel(fileName)

  const redirecting = all.filter(({ tls }) => !tls).filter(({ view }) => redirectsToHttps(view, report))
  const { sockets, options } = chooseListeners(all, socket => (read.get(socket)?.length ?? 0) > 0, report)
  const isRedirecting = sockets.some(socket => redirecting.includes(socket))
  const listening = new Map(
    sockets.map(socket => [socket, redirecting.includes(socket) ? [] : (read.get(socket) ?? [])]),
  )
  for (const socket of sockets) if (!redirecting.includes(socket)) warnOfRedirects(socket.view, report)
  const protections = readProtections(listening, report)
  const files = readFiles(sockets, protections.filesRefusal, report)
  const { tunnels, leftOut } = joinSockets(protections.tunnels, report)
  const [secure] = sockets.filter(({ tls }) => tls)
  const isOpen = !isForLoopback(sockets) && !protections.access && tunnels.length > 0
  const config: ConfigInput = {
    ...options,
    // lighttpd let everybody in, so the file has to say so.
    ...(isOpen ? { anonymous: true } : {}),
    ...(options.http?.port === 'off' || !isRedirecting ? {} : { http: { ...options.http, redirect: true } }),
    ...(secure ? { https: { ...options.https, ...tlsOptions(secure, protections.access !== undefined, report) } } : {}),
    ...(protections.access ? { access: protections.access } : {}),
    // On loopback, mqway serves no other name by itself.
    ...(isForLoopback(sockets) ? { hosts: ['*'] } : {}),
    mqtt: { port: 'off' },
    ...withBroker(tunnels, leftOut),
    ...files.options,
    ...(protections.deny.length > 0 ? { deny: [...protections.deny] } : {}),
    ...limitsOf(sockets, protections.allow),
    ...proxiesOf(sockets, report),
  }
  tellTheRest([evaluated.global, ...evaluated.blocks], taken, report)
  for (const { reason, at } of leftOut) report.warn(at, `this tunnel is left out: ${reason}`)
  if (files.leftOut) report.warn(startOf(fileName), `${files.leftOut.directory} is not served: ${files.leftOut.reason}`)
  if (isOpen) report.note(startOf(fileName), 'anybody can connect, as with lighttpd: see anonymous and host')
  for (const problem of schemaProblems(
    configSchema.safeParse(config, { error: describeIssue }).error?.issues ?? [],
    config,
  )) {
    const shown = formatProblem(problem, valueAt(config, problem.path), undefined)
    report.warn(startOf(fileName), `the result needs a correction: ${shown}`)
  }
  return { yaml: write(config, fileName, leftOut, files.leftOut), findings: report.inOrder() }
}

function warnOfRedirects(view: View, report: Report): void {
  for (const { scope, setting } of view.takeAll('url.redirect')) {
    const condition = scope.tests.length === 0 ? '' : `: it stands under ${conditionText(scope.tests)}`
    report.warn(setting.at, `url.redirect is not carried over${condition}`)
  }
}

function startOf(file: string): Position {
  return { file, line: 1, column: 1 }
}

function noTunnel(fileName: string): LighttpdError {
  return new LighttpdError(
    startOf(fileName),
    'there is no tunnel in it (websocket.server of mod_websocket, wstunnel.server of mod_wstunnel): mqway has nothing to replace here',
  )
}

/** One list for all sockets: a tunnel that is not at every one of them says at which ports it is. */
function joinSockets(
  perSocket: ReadonlyMap<Socket, readonly Tunnel[]>,
  report: Report,
): { tunnels: TunnelsInput; leftOut: LeftOut[] } {
  const kept: { tunnel: Tunnel; sockets: Socket[] }[] = []
  const leftOut: LeftOut[] = []
  for (const [socket, tunnels] of perSocket) {
    for (const tunnel of tunnels) {
      const { refusal } = tunnel
      if (refusal !== undefined) {
        const isKnown = leftOut.some(
          ({ input, reason }) => reason === refusal && isDeepStrictEqual(input, tunnel.input),
        )
        if (!isKnown) leftOut.push({ input: tunnel.input, reason: refusal, at: tunnel.at })
        continue
      }
      const same = kept.find(other => isDeepStrictEqual(other.tunnel.input, tunnel.input))
      if (hidden(tunnel, kept, socket)) {
        report.note(tunnel.at, 'this tunnel is left out: another one takes all of its connections')
      } else if (same) same.sockets.push(socket)
      else kept.push({ tunnel, sockets: [socket] })
    }
  }
  const tunnels = kept.map(({ tunnel, sockets }) => {
    if (sockets.length === perSocket.size) return tunnel.input
    const ports = [...new Set(sockets.map(({ port }) => port))]
    return { ...tunnel.input, ports }
  })
  return { tunnels, leftOut }
}

/** Whether an earlier tunnel of the same socket takes all that this one would. */
function hidden(
  tunnel: Tunnel,
  kept: readonly { tunnel: Tunnel; sockets: readonly Socket[] }[],
  socket: Socket,
): boolean {
  const pathOf = ({ input }: Tunnel) =>
    JSON.stringify([input.pathPrefix, input.pathSuffix, input.pathPattern, input.hosts])
  return kept.some(other => other.sockets.includes(socket) && pathOf(other.tunnel) === pathOf(tunnel))
}

/** The first tunnel's broker is the top-level one, which the other tunnels to it need not repeat. */
function withBroker(tunnels: TunnelsInput, leftOut: readonly LeftOut[]): Pick<ConfigInput, 'broker' | 'tunnels'> {
  const broker = tunnels[0]?.broker ?? leftOut[0]?.input.broker
  if (broker === undefined) return {}
  if (tunnels.length === 0) return { broker, tunnels: [] }
  return {
    broker,
    tunnels: tunnels.map(({ broker: own, ...tunnel }) =>
      isDeepStrictEqual(own, broker) || own === undefined ? tunnel : { ...tunnel, broker: own },
    ),
  }
}

function tlsOptions(
  { view }: Socket,
  asksForCertificates: boolean,
  report: Report,
): Pick<NonNullable<ConfigInput['https']>, 'chain' | 'minVersion'> {
  const minVersion = minVersionOf(view, report)
  const chain = view.takeText('ssl.ca-file')
  return {
    ...(chain === undefined || asksForCertificates ? {} : { chain }),
    ...(minVersion === undefined ? {} : { minVersion }),
  }
}

function limitsOf(sockets: readonly Socket[], allow: readonly string[] | undefined): Pick<ConfigInput, 'limits'> {
  const connections = sockets
    .map(({ view }) => Number(view.takeText('server.max-connections')))
    .find(count => count > 0)
  const limits = { ...(connections === undefined ? {} : { connections }), ...(allow ? { allow: [...allow] } : {}) }
  return Object.keys(limits).length > 0 ? { limits } : {}
}

/** mod_extforward: the proxies whose word on a client's address counts. */
function proxiesOf(sockets: readonly Socket[], report: Report): Pick<ConfigInput, 'trustedProxies'> {
  const settings = sockets.flatMap(({ view }) => view.take('extforward.forwarder') ?? [])
  const [setting] = settings
  if (!(setting?.value instanceof List)) return {}
  const trusted = setting.value.entries.filter(({ value }) => /^(trust|1)$/.test(textOf(value) ?? ''))
  const names = trusted.flatMap(({ key }) => (key === undefined ? [] : [key]))
  if (names.includes('all')) {
    report.warn(setting.at, 'extforward.forwarder: "all" is not carried over: anybody could claim any address')
  }
  const trustedProxies = names.filter(name => name !== 'all')
  return trustedProxies.length > 0 ? { trustedProxies } : {}
}

/** Names every directive that nothing was made of, at each of its lines. */
function tellTheRest(scopes: readonly Scope[], taken: ReadonlySet<Setting>, report: Report): void {
  for (const { settings, tests } of scopes) {
    const condition = tests.length === 0 ? '' : `: it stands under the condition ${conditionText(tests)}`
    for (const setting of settings.values()) {
      const { name, lines } = setting
      if (/^(var|env)\./.test(name) || (taken.has(setting) && !needless.has(name))) continue
      for (const at of lines) {
        if (name === 'server.modules') tellOfModules(setting, report)
        else if (name === 'server.username' || name === 'server.groupname' || name === 'server.chroot')
          tellOfUser(name, setting, at, report)
        else if (needless.has(name)) report.note(at, `${name} is left out: mqway does without it${condition}`)
        else if (lessAvailable.test(name)) report.note(at, `${name} is left out: mqway has nothing like it${condition}`)
        else report.warn(at, `${name} is not carried over${condition}`)
      }
    }
  }
}

function tellOfModules({ value, at }: Setting, report: Report): void {
  const others = textsOf(value).filter(name => !knownModules.has(name))
  if (others.length > 0) report.note(at, `server.modules: mqway has nothing in the place of ${others.join(', ')}`)
}

function tellOfUser(name: string, { value }: Setting, at: Position, report: Report): void {
  const who = JSON.stringify(textsOf(value).join())
  const advice =
    name === 'server.chroot'
      ? 'mqway changes no root directory; systemd does (RootDirectory=)'
      : `mqway does not change its user: start it as ${who} (systemd: User=, Group=, and AmbientCapabilities=CAP_NET_BIND_SERVICE for ports below 1024)`
  report.note(at, `${name} is left out: ${advice}`)
}
