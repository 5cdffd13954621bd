import type { Stats } from 'node:fs'
import send from '@fastify/send'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { pathOf } from '../http/request-target.js'
import { addVary } from '../http/responses.js'
import type { EncodedFiles } from './encoded-files.js'

export interface StaticFilesOptions {
  /** The directory's path. */
  readonly root: string
  /** Index files, the first that exists. */
  readonly index: readonly string[]
  /** Called with the path of each file before it is opened; throws to refuse it. */
  readonly onFile: (path: string, stats: Stats) => Promise<void>
  /** Headers of a file. */
  readonly headersOf: (request: FastifyRequest) => Readonly<Record<string, string>>
  /** Finds compressed content; left out for none. */
  readonly encoded?: EncodedFiles | undefined
}

export interface ServedFilesOptions extends StaticFilesOptions {
  /** Begin of the path that is no part of the file's name. Default: none. */
  readonly prefix?: string
}

/**
 * Serves the requested file: ranges and conditions (RFC 9110 §13, §14), the index file of a directory, and 301 from a directory without a slash at the
 * end, so that relative links hold.
 */
export async function serveFile(request: FastifyRequest, reply: FastifyReply, options: ServedFilesOptions) {
  const { prefix = '' } = options
  const segments = segmentsOf(pathOf(request.url).slice(prefix.length))
  if (!segments || isHidden(segments)) return notFound(reply)
  return sendFile(request, reply, segments, options)
}

/** Serves the file at `segments`, decoded names below the directory. */
export async function sendFile(
  request: FastifyRequest,
  reply: FastifyReply,
  segments: readonly string[],
  { root, index, onFile, headersOf, encoded }: StaticFilesOptions,
) {
  // `send` decodes it.
  const path = `/${segments.map(encodeURIComponent).join('/')}`
  const result = await send(request.raw, path, {
    root,
    index: index.filter(name => !isHidden([name])),
    dotfiles: 'allow',
    cacheControl: false,
    onFile,
  })
  if (result.type === 'directory') return reply.redirect(`${path}/${queryOf(request.url)}`, 301)
  if (result.type === 'error') return isAbsence(result.metadata.error) ? notFound(reply) : result.metadata.error
  // Fastify sets this type for streams, but not with a length.
  reply.code(result.statusCode).type('application/octet-stream').headers(result.headers).headers(headersOf(request))
  if (!encoded?.isCompressible(send.mime.getType(result.metadata.path))) return reply.send(result.stream)
  addVary(reply, 'accept-encoding')
  // Ranges are those of the file itself.
  if (result.statusCode !== 200) return reply.send(result.stream)
  // Without a listener, a file that cannot be opened would be an uncaught exception; Fastify learns of it all the same.
  result.stream.on('error', () => {})
  const content = await encoded
    .find({
      ...{ path: result.metadata.path, stats: result.metadata.stat, onFile },
      acceptEncoding: request.headers['accept-encoding']?.toString(),
    })
    .catch(error => {
      result.stream.destroy()
      throw error
    })
  if (!content) return reply.send(result.stream)
  result.stream.destroy()
  reply.headers({ 'content-encoding': content.coding, 'content-length': content.length })
  return reply.send(request.method === 'HEAD' ? '' : content.open())
}

/**
 * Decodes the names of a path; `undefined` for a path in which two spellings could mean the same file (`.`, `..`, `//`, an encoded slash, a backslash):
 * rules for one would not hold for the other.
 */
function segmentsOf(path: string): string[] | undefined {
  try {
    const segments = path.slice(1).split('/').map(decodeURIComponent)
    const isClear = segments.every((name, at) => isName(name) || (name === '' && at === segments.length - 1))
    return isClear ? segments : undefined
  } catch {
    return undefined
  }
}

function isName(segment: string): boolean {
  return segment !== '' && segment !== '.' && segment !== '..' && !/[/\\\0]/.test(segment)
}

/** Whether a part of the path begins with a dot; `/.well-known/` is public (RFC 8615). */
function isHidden(segments: readonly string[]): boolean {
  return segments.some((name, at) => name.startsWith('.') && !(at === 0 && name === '.well-known'))
}

function queryOf(target: string): string {
  const at = target.indexOf('?')
  return at === -1 ? '' : target.slice(at)
}

function isAbsence(error: Error & { code?: string; status?: number }): boolean {
  return error.code === 'ENOENT' || error.status === 404
}

function notFound(reply: FastifyReply): FastifyReply {
  reply.callNotFound()
  return reply
}
