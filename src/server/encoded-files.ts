import { createReadStream, type Stats } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { CompressionConfig, ContentCoding } from '../config/web.js'
import { acceptedOf } from '../http/accept-encoding.js'
import { Compressor } from '../http/compressor.js'

/** Bytes of the largest file that is compressed here; larger ones need a compressed file beside them. */
const maxFileBytes = 4 * 1024 ** 2

/** Bounds of the compressed files in memory: in bytes, and in number. */
const [maxCachedBytes, maxCached] = [32 * 1024 ** 2, 1000]

/** Bytes that are written to a response at a time. */
const chunkBytes = 64 * 1024

/** The ends of the names of compressed files. */
const suffixes: Readonly<Record<ContentCoding, string>> = { br: '.br', gzip: '.gz', zstd: '.zst' }

/** A file in a content coding. */
export interface EncodedFile {
  readonly coding: ContentCoding
  /** In bytes. */
  readonly length: number
  /** Opens the content; to be closed by the caller. */
  open(): Readable
}

export interface FileRequest {
  readonly acceptEncoding: string | undefined
  readonly path: string
  readonly stats: Stats
  /** Throws to refuse a file. */
  readonly onFile: (path: string, stats: Stats) => Promise<void>
}

/** A file that was compressed here; without content if that is no smaller. */
interface Cached {
  readonly version: string
  readonly content: Buffer | undefined
}

/**
 * Finds a file's content in a coding that the client accepts: in a compressed file beside it (`app.js.br`, `.zst`, `.gz`) that is not older, or
 * compressed here, once, and kept in memory.
 */
export class EncodedFiles {
  readonly #config: CompressionConfig
  readonly #compressor: Compressor
  /** The least recently used first. */
  readonly #cached = new Map<string, Cached>()
  #cachedBytes = 0
  readonly #running = new Map<string, Promise<Buffer | undefined>>()

  constructor(config: CompressionConfig, compressor: Compressor) {
    this.#config = config
    this.#compressor = compressor
  }

  /** Whether files of this media type are compressed, so that a response depends on `Accept-Encoding`. */
  isCompressible(type: string | null): boolean {
    const media = type ?? ''
    return this.#config.types.some(entry => {
      const lower = entry.toLowerCase()
      return lower.endsWith('/*') ? media.startsWith(lower.slice(0, -1)) : media === lower
    })
  }

  /** @returns `undefined` if the file is to be sent as it is */
  async find(request: FileRequest): Promise<EncodedFile | undefined> {
    const codings = acceptedOf(request.acceptEncoding, this.#config.encodings)
    for (const coding of codings) {
      const sibling = await siblingOf(request, coding)
      if (sibling) return sibling
    }
    const { size } = request.stats
    const coding = codings.find(Compressor.has)
    if (coding === undefined || size < this.#config.threshold || size > maxFileBytes) return undefined
    const content = await this.#compressed(request, coding)
    return (
      content && { coding, length: content.length, open: () => Readable.from(chunksOf(content), { objectMode: false }) }
    )
  }

  #compressed({ path, stats }: FileRequest, coding: ContentCoding): Buffer | undefined | Promise<Buffer | undefined> {
    const key = `${coding} ${path}`
    const version = `${stats.ino} ${stats.size} ${stats.mtimeMs}`
    const cached = this.#cached.get(key)
    if (cached?.version === version) {
      this.#cached.delete(key)
      this.#cached.set(key, cached)
      return cached.content
    }
    const name = `${key} ${version}`
    const running = this.#running.get(name)
    if (running) return running
    let isWhole = false
    const compressing = this.#compressor.compress(async () => {
      // It may have been removed: the response says so.
      const file = await readFile(path).catch(() => undefined)
      isWhole = file?.length === stats.size
      return isWhole ? file : undefined
    }, coding)
    if (compressing === undefined) return undefined
    const kept = compressing
      .then(content => {
        if (isWhole) this.#keep(key, { version, content })
        return content
      })
      .finally(() => this.#running.delete(name))
    this.#running.set(name, kept)
    return kept
  }

  #keep(key: string, cached: Cached): void {
    this.#forget(key)
    this.#cached.set(key, cached)
    this.#cachedBytes += cached.content?.length ?? 0
    for (const oldest of this.#cached.keys()) {
      if (this.#cachedBytes <= maxCachedBytes && this.#cached.size <= maxCached) break
      this.#forget(oldest)
    }
  }

  #forget(key: string): void {
    this.#cachedBytes -= this.#cached.get(key)?.content?.length ?? 0
    this.#cached.delete(key)
  }
}

/** The compressed file beside a file; `undefined` if there is none, or it is older than the file, or may not be served. */
async function siblingOf(
  { path, stats, onFile }: FileRequest,
  coding: ContentCoding,
): Promise<EncodedFile | undefined> {
  const name = path + suffixes[coding]
  try {
    const own = await stat(name)
    if (!own.isFile() || own.size === 0 || own.mtimeMs < stats.mtimeMs) return undefined
    await onFile(name, own)
    return { coding, length: own.size, open: () => createReadStream(name, { end: own.size - 1 }) }
  } catch {
    return undefined
  }
}

/** Parts of a content, so that a client that reads slowly has one of them in its queue. */
function* chunksOf(content: Buffer): Generator<Buffer> {
  for (let at = 0; at < content.length; at += chunkBytes) yield content.subarray(at, at + chunkBytes)
}
