import { promisify } from 'node:util'
import { brotliDecompress, gunzip, inflate } from 'node:zlib'
import { codeOf } from '../base/error-code.js'
import { GatewayError } from '../base/errors.js'

type Decode = (body: Buffer, options: { readonly maxOutputLength: number }) => Promise<Buffer>

const decoders: ReadonlyMap<string, Decode> = new Map<string, Decode>([
  ['gzip', promisify(gunzip)],
  ['x-gzip', promisify(gunzip)],
  ['deflate', promisify(inflate)],
  ['br', promisify(brotliDecompress)],
])

/** Supported content codings, as in `Accept-Encoding` (RFC 9110 §12.5.3). */
export const acceptedEncodings = 'gzip, deflate, br'

/**
 * The content coding of a body (RFC 9110 §8.4); `undefined` for none.
 *
 * @throws {GatewayError} `unsupported-encoding` for any other than gzip, deflate and br, or several
 */
export function contentEncodingOf(header: string | undefined): string | undefined {
  const name = header?.trim().toLowerCase() ?? ''
  if (name === '' || name === 'identity') return undefined
  if (decoders.has(name)) return name
  throw new GatewayError('unsupported-encoding')
}

/**
 * Decodes a body.
 *
 * @param encoding as from `contentEncodingOf`
 * @param limit bytes of the decoded body
 * @throws {GatewayError} rejects with `bad-request` if the body is not so encoded, and with `body-too-large`
 */
export type DecodeBody = (body: Buffer, encoding: string, limit: number) => Promise<Buffer>

/** Decodes bodies one after the other, so that one decoded body at most is in memory. */
export function bodyDecoder(): DecodeBody {
  let last: Promise<unknown> = Promise.resolve()
  return (...body) => {
    const decoded = last.then(() => decode(...body))
    last = decoded.catch(() => {})
    return decoded
  }
}

async function decode(body: Buffer, encoding: string, limit: number): Promise<Buffer> {
  const decoder = decoders.get(encoding)
  if (!decoder) throw new GatewayError('unsupported-encoding')
  try {
    return await decoder(body, { maxOutputLength: limit })
  } catch (error) {
    if (codeOf(error) === 'ERR_BUFFER_TOO_LARGE') {
      throw new GatewayError('body-too-large', { hint: `decoded, it may have ${limit} bytes (limits.bodySize)` })
    }
    throw new GatewayError('bad-request', { hint: `the body is not ${encoding}, as Content-Encoding says` })
  }
}
