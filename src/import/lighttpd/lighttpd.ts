import { isDeepStrictEqual } from 'node:util'
import { describeIssue, formatProblem, schemaProblems, valueAt } from '../../config/problems.js'
import { type ConfigInput, configSchema } from '../../config/schema.js'
import { conditionText } from './conditions.js'
import type { TunnelBroker, TunnelsInput } from './drafts.js'
import { evaluate, type Setting, type Surroundings } from './evaluate.js'
import { readFiles } from './files.js'
import { joinSockets } from './joined.js'
import { chooseListeners, isForLoopback, minVersionOf, readSockets, type Socket } from './listeners.js'
import { Modules } from './modules.js'
import { type Protections, readProtections } from './protections.js'
import { readProxies } from './proxies.js'
import { redirectsToHttps } from './redirects.js'
import { type Finding, Report } from './report.js'
import { readResponses } from './responses.js'
import { LighttpdError, type Position } from './tokens.js'
import { readTunnels, refused, type Tunnel } from './tunnels.js'
import { reportUntranslated } from './untranslated.js'
import type { View } from './view.js'
import { write } from './write.js'

export type { IncludedFile, ReadInclude, Surroundings } from './evaluate.js'
export type { Finding } from './report.js'
export { LighttpdError } from './tokens.js'

/** The result of an import. */
export interface Imported {
  /** A complete configuration file. */
  readonly yaml: string
  /** All differences, in the order of the lines. */
  readonly findings: readonly Finding[]
}

/**
 * Translates a `lighttpd.conf` with mod_websocket or mod_wstunnel into a configuration file of mqway. The result never allows more than
 * the original: whatever mqway cannot express is left out, with the reason.
 *
 * Pure: included files, the environment and the working directory come from `surroundings`.
 *
 * @throws {LighttpdError} for a text that lighttpd would refuse, and for one without a tunnel; with file, line and column
 */
export function importLighttpd(
  text: string,
  { fileName, ...surroundings }: { readonly fileName: string } & Surroundings,
): Imported {
  const report = new Report()
  const evaluated = evaluate(text, fileName, surroundings, report)
  const modules = new Modules(evaluated)
  const taken = new Set<Setting>()
  const all = readSockets(evaluated, fileName, taken, report)
  const read = new Map(all.map(socket => [socket, readTunnels(socket.view, modules, report)]))
  const [first] = [...read.values()].flat()
  if (!first) throw noTunnel(fileName)

  const { sockets, options } = chooseListeners(all, socket => (read.get(socket)?.length ?? 0) > 0, report)
  const redirecting = redirectingSockets(sockets, report)
  const protections = readProtections(tunnelsToListenFor(sockets, redirecting, read), report)
  const proxies = readProxies(sockets, modules.has('mod_extforward'), report)
  const files = readFiles(sockets, protections.filesRefusal, report)
  const responses = readResponses(sockets, modules, report)
  const { tunnels, leftOut } = joinSockets(
    proxies.areSame ? protections.tunnels : withoutAddresses(protections),
    report,
  )
  const [secure] = sockets.filter(({ tls }) => tls)
  const isOpen = !isForLoopback(sockets) && tunnels.some(({ requireIdentity }) => requireIdentity !== true)
  const config: ConfigInput = {
    ...options,
    // lighttpd has no access control; mqway requires that to be explicit.
    ...(isOpen ? { anonymous: true } : {}),
    ...(redirecting.length > 0 ? { http: { ...options.http, redirect: true } } : {}),
    ...(secure ? { https: { ...options.https, ...tlsOptions(secure, protections.access !== undefined, report) } } : {}),
    ...(protections.access ? { access: protections.access } : {}),
    // On loopback, mqway serves only loopback names by default.
    ...(isForLoopback(sockets) ? { hosts: ['*'] } : {}),
    mqtt: { port: 'off' },
    ...withBroker(tunnels, leftOut[0]?.input.broker ?? first.input.broker),
    ...files.options,
    ...responses,
    ...(protections.deny.length > 0 ? { deny: [...protections.deny] } : {}),
    ...limitsOf(sockets, protections.allow),
    ...proxies.options,
  }
  reportUntranslated([evaluated.global, ...evaluated.blocks], taken, report)
  modules.warnOfIgnored(evaluated, report)
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

/** The plain sockets, if all of them redirect to https: mqway redirects on all or none. */
function redirectingSockets(sockets: readonly Socket[], report: Report): readonly Socket[] {
  const plain = sockets.filter(({ tls }) => !tls)
  const redirecting = plain.filter(({ view }) => redirectsToHttps(view, report))
  const taken = redirecting.length === plain.length ? redirecting : []
  for (const socket of sockets) if (!taken.includes(socket)) warnOfRedirects(socket.view, report)
  return taken
}

/** The tunnels of each socket, without those that a redirect hides and another socket serves. */
function tunnelsToListenFor(
  sockets: readonly Socket[],
  redirecting: readonly Socket[],
  read: ReadonlyMap<Socket, readonly Tunnel[]>,
): Map<Socket, readonly Tunnel[]> {
  const own = (socket: Socket): readonly Tunnel[] => read.get(socket) ?? []
  const served = sockets.filter(socket => !redirecting.includes(socket)).flatMap(own)
  const isServed = ({ at }: Tunnel): boolean => served.some(other => isDeepStrictEqual(other.at, at))
  return new Map(
    sockets.map(socket => [
      socket,
      redirecting.includes(socket) ? own(socket).filter(tunnel => !isServed(tunnel)) : own(socket),
    ]),
  )
}

/** Leaves out tunnels that depend on client addresses, because mqway would see those of proxies. */
function withoutAddresses({ tunnels, allow }: Protections): ReadonlyMap<Socket, readonly Tunnel[]> {
  const reason = 'it is for some addresses, and extforward.forwarder, which tells them, is not carried over'
  return new Map(
    [...tunnels].map(([socket, own]) => [
      socket,
      own.map(tunnel => (allow || tunnel.input.allow ? refused(tunnel, reason) : tunnel)),
    ]),
  )
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

/** Makes the first tunnel's broker the top-level one, and omits it from tunnels. @param other the broker if there is no tunnel */
function withBroker(tunnels: TunnelsInput, other: TunnelBroker | undefined): Pick<ConfigInput, 'broker' | 'tunnels'> {
  const broker = tunnels[0]?.broker ?? other
  return {
    ...(broker === undefined ? {} : { broker }),
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
