import { isDeepStrictEqual } from 'node:util'
import { Document, isMap, isScalar } from 'yaml'
import { collectWarnings, Directives, textOf, type Warn } from './lighttpd/directives.js'
import { evaluate, List, type ReadInclude, type Setting, type Warning } from './lighttpd/evaluate.js'
import { translateListeners } from './lighttpd/listeners.js'
import type { Position } from './lighttpd/tokens.js'
import {
  type Lookup,
  type Translated,
  type TunnelInput,
  translateWebsocket,
  translateWstunnel,
} from './lighttpd/tunnels.js'
import { formatProblem, schemaProblems, valueAt } from './problems.js'
import { type ConfigInput, configSchema } from './schema.js'

export type { IncludedFile, ReadInclude, Warning } from './lighttpd/evaluate.js'
export { LighttpdError } from './lighttpd/tokens.js'

/** What lighttpd needed and mqway does not, so that leaving it out changes nothing for a client. */
const needless = new Set([
  'server.pid-file',
  'server.username',
  'server.groupname',
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
  'server.feature-flags',
  'mimetype.assign',
  'mimetype.use-xattr',
  'index-file.names',
  'websocket.debug',
  'wstunnel.debug',
  'ssl.use-sslv2',
  'ssl.use-sslv3',
])

/** Modules whose directives are read here, or that add nothing to be missed. */
const knownModules = new Set([
  'mod_websocket',
  'mod_wstunnel',
  'mod_openssl',
  'mod_setenv',
  'mod_indexfile',
  'mod_staticfile',
])

/** The mqway configuration that does what a lighttpd configuration did. */
export interface Imported {
  /** A complete configuration file. */
  readonly yaml: string
  /** Everything that could not be carried over, in the order of the lines. */
  readonly warnings: readonly Warning[]
}

/**
 * Translates a `lighttpd.conf` with mod_websocket or mod_wstunnel into mqway's configuration file.
 *
 * Pure: `readInclude` is asked for the files that an `include` names.
 *
 * @throws {LighttpdError} for a text that is not a lighttpd configuration, with file, line and column
 */
export function importLighttpd(
  text: string,
  { fileName, readInclude }: { readonly fileName: string; readonly readInclude: ReadInclude },
): Imported {
  const evaluated = evaluate(text, fileName, readInclude)
  const { warnings, warn } = collectWarnings()
  const global = new Directives(evaluated.global, warn)
  const blocks = new Map(
    [...evaluated.sockets].map(([address, { settings }]) => [address, new Directives(settings, warn)]),
  )
  const config: ConfigInput = {
    ...translateListeners(evaluated, global, blocks, fileName, warn),
    mqtt: { port: 'off' },
    ...withBroker(translateTunnels(global, [...blocks.values()], fileName, warn)),
    ...publicDirectory(global),
  }
  warnOfModules(global.take('server.modules'), warn)
  for (const directives of [global, ...blocks.values()]) for (const setting of directives.rest()) warnOf(setting, warn)
  for (const { setting, condition } of evaluated.conditional) {
    if (!setting.name.startsWith('var.')) {
      warn(setting.at, `${setting.name} is not carried over: it stands under the condition ${condition}`)
    }
  }
  if (config.anonymous) {
    warn(startOf(fileName), 'anybody can connect, as with lighttpd: see anonymous and host')
  }
  for (const problem of schemaProblems(configSchema.safeParse(config).error?.issues ?? [], config)) {
    warn(
      startOf(fileName),
      `the result needs a correction: ${formatProblem(problem, valueAt(config, problem.path), undefined)}`,
    )
  }
  return { yaml: write(config, fileName), warnings: inOrder([...evaluated.warnings, ...warnings]) }
}

function startOf(file: string): Position {
  return { file, line: 1, column: 1 }
}

/** The tunnels for all sockets; where there are none, those of the first block that has any. */
function translateTunnels(
  global: Directives,
  blocks: readonly Directives[],
  fileName: string,
  warn: Warn,
): readonly TunnelInput[] {
  const read = (take: Lookup) => [...translateWebsocket(take, warn), ...translateWstunnel(take, warn)]
  const everywhere = read(name => global.take(name))
  if (everywhere.length > 0) return withoutRepeats(everywhere, warn)
  for (const block of blocks) {
    const server = block.get('websocket.server') ?? block.get('wstunnel.server')
    const tunnels = server ? read(name => block.take(name) ?? global.take(name)) : []
    if (server && tunnels.length > 0) {
      warn(server.at, 'these tunnels are served on every port now: mqway does not tie them to one')
      return withoutRepeats(tunnels, warn)
    }
  }
  warn(startOf(fileName), 'there is no tunnel to carry over: mqway serves /mqtt with its own broker')
  return []
}

/** Two keys of lighttpd may say the same (`/mqtt` and `^/mqtt`); the first tunnel is the one that counts. */
function withoutRepeats(translated: readonly Translated[], warn: Warn): TunnelInput[] {
  const seen = new Set<string>()
  return translated.flatMap(({ tunnel, at }) => {
    const key = JSON.stringify([tunnel.pathPrefix, tunnel.pathSuffix, tunnel.pathPattern])
    if (seen.has(key)) {
      warn(at, 'this tunnel is left out: another one takes all of its connections')
      return []
    }
    seen.add(key)
    return [tunnel]
  })
}

/** The first tunnel's broker is the top-level one, which the other tunnels to it need not repeat. */
function withBroker(tunnels: readonly TunnelInput[]): Pick<ConfigInput, 'broker' | 'tunnels'> {
  const broker = tunnels[0]?.broker
  if (broker === undefined) return {}
  return {
    broker,
    tunnels: tunnels.map(({ broker: own, ...tunnel }) =>
      isDeepStrictEqual(own, broker) || own === undefined ? tunnel : { ...tunnel, broker: own },
    ),
  }
}

function publicDirectory(global: Directives): Pick<ConfigInput, 'public'> {
  const directory = global.takeText('server.document-root')
  return directory ? { public: directory } : {}
}

function warnOfModules(setting: Setting | undefined, warn: Warn): void {
  if (!(setting?.value instanceof List)) return
  const others = setting.value.entries
    .flatMap(({ value }) => textOf(value) ?? [])
    .filter(name => !knownModules.has(name))
  if (others.length > 0) warn(setting.at, `server.modules: mqway has nothing in the place of ${others.join(', ')}`)
}

function warnOf({ name, at }: Setting, warn: Warn): void {
  warn(at, needless.has(name) ? `${name} is left out: mqway does without it` : `${name} is not carried over`)
}

/** By line within each file; files in the order in which they first turn up. */
function inOrder(warnings: readonly Warning[]): Warning[] {
  const files = [...new Set(warnings.map(warning => warning.file))]
  return warnings.toSorted((a, b) => files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line)
}

const everybodyComment =
  ' lighttpd let everybody in, and so does this. Behind a firewall or a login, keep it;\n else listen on 127.0.0.1.'
const subprotocolComment =
  ' Sent whatever the client offers, as lighttpd did. Without this line a client gets the one it offers.'

function write(config: ConfigInput, fileName: string): string {
  const document = new Document(config, { aliasDuplicateObjects: false })
  document.commentBefore =
    ` Made by mqway import from ${fileName.replaceAll(/[^\x20-\x7e]/g, '?')}\n` +
    ' yaml-language-server: $schema=./node_modules/mqway/mqway.schema.json'
  comment(document.contents, 'anonymous', everybodyComment)
  comment(document.getIn(['tunnels', 0]), 'forceSubprotocol', subprotocolComment)
  return document.toString({ lineWidth: 0 })
}

function comment(map: unknown, key: string, text: string): void {
  const pair = isMap(map) ? map.items.find(item => isScalar(item.key) && item.key.value === key) : undefined
  if (isScalar(pair?.key)) pair.key.commentBefore = text
}
