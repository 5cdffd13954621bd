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
import { isApiRequest, sendError, sendProblem } from '../http/problem.js'
import { pathOf } from '../http/request-target.js'
import { sendStatus } from '../http/responses.js'
import type { Answer } from '../http/unread-responses.js'
import { PrivateFileGuard } from './private-file-guard.js'
import { type StaticFilesOptions, sendFile, serveFile } from './static-files.js'
import type { UpgradeRefusal } from './upgrade.js'

export interface PagesOptions {
  /** A directory to serve instead of the built-in pages. */
  readonly directory?: string | undefined
  readonly resolveClient: ClientResolver
  /** Files that stand for their directory, the first that is there. Default: `index.html`. */
  readonly index?: readonly string[] | undefined
  /** Rules for the path of a file, however it was asked for. */
  readonly site?: SiteRules | undefined
  /** The program's own files, none of which is served, by whatever link. */
  readonly ownFiles?: readonly PrivateFile[]
  readonly log: Logger
}

/** The pages that come with the program. From `src/listen` and from `dist/listen` it is the same way. */
const builtInDirectory = fileURLToPath(new URL('../../public', import.meta.url))

const pahoDirectory = dirname(createRequire(import.meta.url).resolve('paho-mqtt'))

/** The browser clients: Paho as its package ships it, and the one for pages without MQTT. */
const clients = [
  { name: 'paho-mqtt.js', file: 'paho-mqtt.js', directory: pahoDirectory },
  { name: 'paho-mqtt.min.js', file: 'paho-mqtt-min.js', directory: pahoDirectory },
  { name: 'mqway.js', file: 'mqway.js', directory: builtInDirectory },
] as const

/**
 * What the built-in pages may do: load what is here, and connect to where they came from. `connect-src 'self'` includes
 * ws: and wss: to the same host and port (CSP3 §6.7.2.8: in Chromium, Firefox, and Safari from 15.4 on), so not even
 * injected script could send messages elsewhere. A user's own pages have their own idea of this.
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

/** Responses with a file at a time: each holds a descriptor and up to 64 KiB that were read ahead. */
const maxOpenFiles = 256

/** A file that is not to be served, told apart from one that is not there by the log alone. */
class HiddenFile extends Error {
  readonly statusCode = 404
}

/**
 * Serves static files: the built-in pages, or a directory of the user's, and the browser clients under `/vendor/`.
 *
 * Files whose name begins with a dot, links that lead out of the directory, the program's own files, and what is no regular file
 * do not exist.
 * Browsers may keep what they got, but ask each time whether it is still the same (ETag).
 *
 * @throws {StartError} when the directory is none
 */
export async function registerPages(app: FastifyInstance, options: PagesOptions): Promise<void> {
  const { log } = options
  const root = resolve(options.directory ?? builtInDirectory)
  const realRoot = await directoryAt(root)
  const guard = new PrivateFileGuard(options.ownFiles ?? [])
  const onlyInside = (inside: string) => async (path: string, stats: Stats) => {
    const real = await realpath(path)
    options.site?.checkPath(`/${relative(root, path)}`)
    const isOwn = await guard.isOwn(real, stats)
    if (stats.isFile() && isInside(real, inside) && !isOwn) return
    const reason = isOwn ? 'a file of mqway itself' : 'no file, or outside of the directory'
    log[isOwn ? 'warn' : 'debug']({ path, real }, `Not served: it is ${reason}`)
    throw new HiddenFile(reason)
  }

  await app.register(async scope => {
    boundOpenFiles(scope, options)
    closeUnsentFiles(scope)
    const policy = options.directory === undefined && { 'content-security-policy': builtInPolicy }
    const files: StaticFilesOptions = {
      root,
      index: options.index ?? ['index.html'],
      onFile: onlyInside(realRoot),
      headers: { 'cache-control': 'no-cache', ...policy },
    }
    scope.route({ method: ['GET', 'HEAD'], url: '/*', handler: (...asked) => serveFile(...asked, files) })
    for (const { name, file, directory } of clients) {
      const own = ['vendor', name]
      const bundled = { ...files, root: directory, onFile: onlyInside(await realpath(directory)) }
      scope.get(`/vendor/${name}`, async (request, reply) =>
        (await isThere(join(root, ...own)))
          ? sendFile(request, reply, own, files)
          : sendFile(request, reply, [file], bundled),
      )
    }
  })
}

/**
 * Bounds the files that are being sent to clients, however slowly those read: 256 in all, shared fairly by address. A request beyond is
 * answered 503.
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
    // Without Node's server (see answerWithoutUpgrade) a response that is complete is not closed.
    reply.raw.once('finish', release).once('close', release)
    done()
  })
}

/** Closes the file of a response whose client has left before anything was sent of it; Fastify sees only those that leave later. */
function closeUnsentFiles(scope: FastifyInstance): void {
  scope.addHook('onSend', (_request, reply, payload, done) => {
    if (payload instanceof Readable) {
      if (isGone(reply.raw)) payload.destroy()
      else reply.raw.once('close', () => payload.destroy())
    }
    done(null, payload)
  })
}

function isGone(response: Answer): boolean {
  return 'stream' in response ? response.stream.destroyed : response.destroyed
}

/** What `registerEndpointHints` may say besides. */
export interface EndpointHints {
  /** The refusal that a handshake at an endpoint would get; `undefined` for none. */
  readonly refusalOf?: (request: IncomingMessage) => Promise<UpgradeRefusal | undefined>
  /** Tells a browser whether its page may read a 404 or 405; left out for pages of the same origin alone. */
  readonly setOriginHeaders?: (request: FastifyRequest, reply: FastifyReply) => void
  /** Where there is no push: the reason, in a sentence, and the paths at which its clients look for it. */
  readonly noPush?: { readonly sentence: string; isAt(path: string): boolean } | undefined
}

/**
 * Answers what no route answers: at the paths of WebSocket endpoints the refusal of a handshake, or 426 and a sentence; 404 or 405
 * elsewhere. An endpoint may be a prefix or a pattern, so what there is to read below it is still served.
 *
 * @param matches whether there is an endpoint at a path; see `UpgradeRouter.matches`
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

/** The cause where the other headers of a handshake are there: a proxy passes only `Upgrade` and `Connection` on when it is told to. */
function hopSentence({ headers }: FastifyRequest): string | undefined {
  if (headers['sec-websocket-key'] === undefined) return undefined
  return (
    'A WebSocket handshake came here without Upgrade and Connection: a proxy in front has to pass both on, over HTTP/1.1 ' +
    '(nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade").'
  )
}

/** RFC 9110 §15.5.22 asks for these; HTTP/2 has none like them (RFC 9113 §8.2.2). */
function upgradeHeaders(request: FastifyRequest): Record<string, string> {
  const caching = { 'cache-control': 'no-store' }
  return request.raw.httpVersionMajor === 1
    ? { ...caching, upgrade: 'websocket', connection: 'upgrade, close' }
    : caching
}

/**
 * The names of the directories that pages are served of, at the top.
 *
 * @param directory as in `PagesOptions`
 */
export async function listPageDirectories(directory = builtInDirectory): Promise<ReadonlySet<string>> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => [])
  // A link may be one to a directory.
  return new Set(entries.filter(entry => !entry.isFile()).map(({ name }) => name))
}

async function directoryAt(path: string): Promise<string> {
  const stats = await stat(path).catch(() => undefined)
  if (stats?.isDirectory()) return realpath(path)
  throw new StartError(`--public ${path}: ${stats ? 'is no directory' : 'does not exist'}`)
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false
}
