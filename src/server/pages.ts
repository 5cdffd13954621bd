import type { Stats } from 'node:fs'
import { readdir, realpath, stat } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { createRequire } from 'node:module'
import { dirname, join, relative, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { ClientResolver } from '../access/client-address.js'
import { networkOf } from '../access/limits.js'
import type { SiteRules } from '../access/site-rules.js'
import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import { isInside, type PrivateFile } from '../config/private-files.js'
import type { HeaderRules } from '../http/header-rules.js'
import { isApiRequest, sendError, sendProblem } from '../http/problem.js'
import { pathOf } from '../http/request-target.js'
import { sendStatus } from '../http/responses.js'
import type { HttpResponse } from '../http/unread-responses.js'
import type { EncodedFiles } from './encoded-files.js'
import { createPrivateFileGuard } from './private-file-guard.js'
import { type ServedFilesOptions, type StaticFilesOptions, sendFile, serveFile } from './static-files.js'
import type { UpgradeRefusal } from './upgrade.js'

export interface PagesOptions {
  /** A directory to serve instead of the built-in pages. */
  readonly directory?: string | undefined
  readonly resolveClient: ClientResolver
  /** Index files of a directory, the first that exists. Default: `index.html`. */
  readonly index?: readonly string[] | undefined
  /** Headers of files, besides the program's. */
  readonly headerRules?: HeaderRules | undefined
  /** Compression of files; left out for none. */
  readonly encoded?: EncodedFiles | undefined
  /** Rules by path, however a file was requested. */
  readonly site?: SiteRules | undefined
  /** Files of the program itself, which are never served, not even through links. */
  readonly ownFiles?: readonly PrivateFile[]
  readonly log: Logger
}

/** The built-in pages; the same relative path from `src/server` and `dist/server`. */
const builtInDirectory = fileURLToPath(new URL('../../public', import.meta.url))

const { resolve: resolveModule } = createRequire(import.meta.url)
const pahoDirectory = dirname(resolveModule('paho-mqtt'))
const uplotDirectory = dirname(resolveModule('uplot'))
const mqttDirectory = join(dirname(resolveModule('mqtt/package.json')), 'dist')

/** Browser clients: Paho and MQTT.js from their packages, and the one for pages without MQTT; and what the dashboard draws its charts with. */
const bundledFiles = [
  { name: 'paho-mqtt.js', file: 'paho-mqtt.js', directory: pahoDirectory },
  { name: 'paho-mqtt.min.js', file: 'paho-mqtt-min.js', directory: pahoDirectory },
  { name: 'mqtt.js', file: 'mqtt.js', directory: mqttDirectory },
  { name: 'mqtt.min.js', file: 'mqtt.min.js', directory: mqttDirectory },
  { name: 'mqtt.esm.js', file: 'mqtt.esm.js', directory: mqttDirectory },
  { name: 'mqway.js', file: 'mqway.js', directory: builtInDirectory },
  { name: 'uplot.min.js', file: 'uPlot.iife.min.js', directory: uplotDirectory },
  { name: 'uplot.min.css', file: 'uPlot.min.css', directory: uplotDirectory },
] as const

/** The page of the dashboard; below it are its modules and styles. */
const dashboardUrl = '/dashboard'

/**
 * CSP of the built-in pages: they load from here and connect to their own origin only. `connect-src 'self'` includes ws: and wss: to the same host
 * and port (CSP3 §6.7.2.8: in Chromium, Firefox, and Safari from 15.4 on), so that injected script could send nothing elsewhere. Pages of a
 * configured directory have no policy from here.
 */
const builtInPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** Open files: each has a descriptor and up to 64 KiB of read-ahead. */
const maxOpenFiles = 256

/** A file that is not served; only the log tells it from a missing one. */
class HiddenFile extends Error {
  readonly statusCode = 404
}

/**
 * Serves static files: the built-in pages or a configured directory, the browser clients under `/vendor/`, and the dashboard, unless the directory has
 * an entry of this name.
 *
 * Files whose name begins with a dot, links out of the directory, files of the program itself, and what is no regular file are answered 404.
 * Browsers may cache files, but revalidate them each time (ETag).
 *
 * @throws {StartError} if the directory is none
 */
export async function registerPages(app: FastifyInstance, options: PagesOptions): Promise<void> {
  const { log } = options
  const root = resolve(options.directory ?? builtInDirectory)
  const realRoot = await directoryAt(root)
  const isOwnFile = createPrivateFileGuard(options.ownFiles ?? [])
  const onlyInside = (inside: string) => async (path: string, stats: Stats) => {
    const real = await realpath(path)
    options.site?.checkPath(`/${relative(root, path)}`)
    const isOwn = await isOwnFile(real, stats)
    if (stats.isFile() && isInside(real, inside) && !isOwn) return
    const reason = isOwn ? 'a file of mqway itself' : 'no file, or outside of the directory'
    log[isOwn ? 'warn' : 'debug']({ path, real }, `Not served: it is ${reason}`)
    throw new HiddenFile(reason)
  }

  await app.register(async scope => {
    boundOpenFiles(scope, options)
    closeUnsentFiles(scope)
    const builtIn = { 'content-security-policy': builtInPolicy }
    const policy = options.directory === undefined && builtIn
    const ruled = ({ raw, url }: FastifyRequest) =>
      options.headerRules?.forFile({ ...options.resolveClient(raw), path: pathOf(url) })
    const files: StaticFilesOptions = {
      root,
      encoded: options.encoded,
      index: options.index ?? ['index.html'],
      onFile: onlyInside(realRoot),
      headersOf: request => ({ 'cache-control': 'no-cache', ...ruled(request), ...policy }),
    }
    scope.route({ method: ['GET', 'HEAD'], url: '/*', handler: (...asked) => serveFile(...asked, files) })
    for (const { name, file, directory } of bundledFiles) {
      const own = ['vendor', name]
      const bundled = { ...files, root: directory, onFile: onlyInside(await realpath(directory)) }
      scope.get(`/vendor/${name}`, async (request, reply) =>
        (await isThere(join(root, ...own)))
          ? sendFile(request, reply, own, files)
          : sendFile(request, reply, [file], bundled),
      )
    }
    if (options.directory !== undefined && (await isTaken(join(root, dashboardUrl)))) return
    const dashboard: ServedFilesOptions = {
      ...files,
      root: builtInDirectory,
      prefix: dashboardUrl,
      onFile: onlyInside(await realpath(builtInDirectory)),
      headersOf: request => ({ ...files.headersOf(request), ...builtIn }),
    }
    scope.get(dashboardUrl, (request, reply) => sendFile(request, reply, ['dashboard.html'], dashboard))
    scope.get(`${dashboardUrl}/`, async (_request, reply) => reply.redirect(dashboardUrl, 308))
    scope.get(`${dashboardUrl}/*`, (request, reply) => serveFile(request, reply, dashboard))
  })
}

/**
 * Bounds open files, however slowly clients read them: 256 in all, shared fairly by network. Further requests are answered 503.
 */
function boundOpenFiles(scope: FastifyInstance, { resolveClient }: Pick<PagesOptions, 'resolveClient'>): void {
  const quota = new FairQuota(maxOpenFiles)
  scope.addHook('onRequest', (request, reply, done) => {
    const key = networkOf(resolveClient(request.raw).address)
    if (quota.exceededBy(key, 1) !== undefined) throw new GatewayError('files-too-many')
    quota.take(key, 1)
    let isOpen = true
    const release = (): void => {
      if (isOpen) quota.giveBack(key, 1)
      isOpen = false
    }
    // After respondWithoutUpgrade, a complete response emits no 'close'.
    reply.raw.once('finish', release).once('close', release)
    done()
  })
}

/** Closes the file of a response whose client has left before its first byte; Fastify does so only later. */
function closeUnsentFiles(scope: FastifyInstance): void {
  scope.addHook('onSend', (_request, reply, payload, done) => {
    if (payload instanceof Readable) {
      if (isGone(reply.raw)) payload.destroy()
      else reply.raw.once('close', () => payload.destroy())
    }
    done(null, payload)
  })
}

function isGone(response: HttpResponse): boolean {
  return 'stream' in response ? response.stream.destroyed : response.destroyed
}

export interface EndpointHints {
  /** The refusal that a handshake would get at an endpoint; `undefined` for none. */
  readonly refusalOf?: (request: IncomingMessage) => Promise<UpgradeRefusal | undefined>
  /** Sets the CORS headers of a 404 or 405; left out for none. */
  readonly setOriginHeaders?: (request: FastifyRequest, reply: FastifyReply) => void
  /** Without push: the reason, and the paths of its clients. */
  readonly noPush?: { readonly sentence: string; isAt(path: string): boolean } | undefined
}

/**
 * Answers requests without a route: at WebSocket endpoints with the refusal of a handshake, or 426; elsewhere 404 or 405. An endpoint may be a prefix
 * or a pattern, so files below it are still served.
 *
 * @param matches whether a path has an endpoint; see `UpgradeRouter.matches`
 */
export function registerEndpointHints(
  app: FastifyInstance,
  matches: (path: string) => boolean,
  { refusalOf = async () => undefined, setOriginHeaders = () => {}, noPush }: EndpointHints = {},
): void {
  app.setNotFoundHandler(async (request, reply) => {
    const path = pathOf(request.url)
    if (matches(path)) {
      const refusal = await refusalOf(request.raw)
      if (refusal) return sendError(request, reply, refusal.error, { 'cache-control': 'no-store', ...refusal.headers })
      return sendStatus(request, reply, 426, upgradeHeaders(request), hopSentence(request))
    }
    setOriginHeaders(request, reply)
    const noPushHere = noPush?.isAt(path) ? noPush.sentence : undefined
    if (isApiRequest(request)) {
      const why = noPushHere !== undefined && { detail: noPushHere, reason: 'push-off' }
      return sendProblem(reply, { status: 404, ...why })
    }
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return sendStatus(request, reply, 405, { allow: 'GET, HEAD' })
    return sendStatus(request, reply, 404, {}, noPushHere && `${noPushHere}.`)
  })
}

/** The likely cause if the other handshake headers are there: a proxy that does not pass on `Upgrade` and `Connection`. */
function hopSentence({ headers }: FastifyRequest): string | undefined {
  if (headers['sec-websocket-key'] === undefined) return undefined
  return (
    'A WebSocket handshake came here without Upgrade and Connection: a proxy in front has to pass both on, over HTTP/1.1 ' +
    '(nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade").'
  )
}

/** Required by RFC 9110 §15.5.22; HTTP/2 does not have them (RFC 9113 §8.2.2). */
function upgradeHeaders(request: FastifyRequest): Record<string, string> {
  const caching = { 'cache-control': 'no-store' }
  return request.raw.httpVersionMajor === 1
    ? { ...caching, upgrade: 'websocket', connection: 'upgrade, close' }
    : caching
}

/**
 * The names of the top-level directories of pages.
 *
 * @param directory as in `PagesOptions`
 */
export async function listPageDirectories(directory = builtInDirectory): Promise<ReadonlySet<string>> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => [])
  // A link may lead to a directory.
  return new Set(entries.filter(entry => !entry.isFile()).map(({ name }) => name))
}

async function directoryAt(path: string): Promise<string> {
  const stats = await stat(path).catch(() => undefined)
  if (stats?.isDirectory()) return realpath(path)
  throw new StartError(`--public ${path}: ${stats ? 'is no directory' : 'does not exist'}`)
}

async function isTaken(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false
}
