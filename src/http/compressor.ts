import { promisify } from 'node:util'
import zlib from 'node:zlib'
import type { CompressionConfig, ContentCoding } from '../config/web.js'
import { acceptedOf } from './accept-encoding.js'

type Compress = (data: Buffer) => Promise<Buffer>

/** Compressions under way at a time: half of the threads that files, passwords and they share (UV_THREADPOOL_SIZE is 4). */
const maxConcurrent = 2

/** Of 11; the levels above take ten times as long for some percent. */
const brotliQuality = 5

const { constants, brotliCompress, gzip } = zlib
const brotli = promisify<Buffer, zlib.BrotliOptions, Buffer>(brotliCompress)
const zstd: unknown = 'zstdCompress' in zlib ? zlib.zstdCompress : undefined

const compressors: Readonly<Record<ContentCoding, Compress | undefined>> = {
  br: data =>
    brotli(data, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: brotliQuality,
        [constants.BROTLI_PARAM_SIZE_HINT]: data.length,
      },
    }),
  gzip: promisify<Buffer, Buffer>(gzip),
  // Node.js 22.15 and later.
  zstd: typeof zstd === 'function' ? promisify(zstd as (data: Buffer, done: Done) => void) : undefined,
}

type Done = (error: Error | null, result: Buffer) => void

/**
 * Compresses whole bodies outside of the event loop, two at a time. A further one is not queued but sent as it is: many requests at once cost the time
 * and the memory of two.
 */
export class Compressor {
  #running = 0

  /** Whether this version of Node.js has the coding. */
  static has(coding: ContentCoding): boolean {
    return compressors[coding] !== undefined
  }

  /**
   * Compresses what `read` returns.
   *
   * @returns `undefined` if two are under way, or the coding does not exist here, and then `read` is not called; resolves with `undefined` where
   *   there is nothing, or the result is not smaller
   */
  compress(
    read: () => Buffer | Promise<Buffer | undefined>,
    coding: ContentCoding,
  ): Promise<Buffer | undefined> | undefined {
    const compress = compressors[coding]
    if (compress === undefined || this.#running >= maxConcurrent) return undefined
    this.#running += 1
    return compressed(read, compress).finally(() => {
      this.#running -= 1
    })
  }
}

async function compressed(
  read: () => Buffer | Promise<Buffer | undefined>,
  compress: Compress,
): Promise<Buffer | undefined> {
  const data = await read()
  if (data === undefined) return undefined
  const result = await compress(data)
  return result.length < data.length ? result : undefined
}

/** Compresses the bodies of responses to one client. */
export interface BodyEncoder {
  /** For `Content-Encoding`. */
  readonly coding: ContentCoding
  /** As `Compressor.compress`; `undefined` also for a body below the threshold. */
  encode(body: string | Buffer): Promise<Buffer | undefined> | undefined
}

/** Makes the encoder of a client by its `Accept-Encoding`; `undefined` if it accepts no coding. */
export type BodyEncoders = (acceptEncoding: string | undefined) => BodyEncoder | undefined

export function bodyEncoders(
  { encodings, threshold }: Pick<CompressionConfig, 'encodings' | 'threshold'>,
  compressor: Compressor,
): BodyEncoders {
  const offered = encodings.filter(Compressor.has)
  return acceptEncoding => {
    const [coding] = acceptedOf(acceptEncoding, offered)
    if (coding === undefined) return undefined
    return {
      coding,
      encode: body => {
        if (Buffer.byteLength(body) < threshold) return undefined
        return compressor.compress(() => (typeof body === 'string' ? Buffer.from(body) : body), coding)
      },
    }
  }
}
