import { z } from 'zod'
import { givenPaths, hostPattern, pathConditions } from './path-conditions.js'
import { size } from './units.js'
import { file } from './values.js'

/*
 * The options of the web servers' responses: `headers:`, `compression:`, `accessLog:`.
 */

/** A token (RFC 9110 §5.6.2). */
const headerName = z
  .string()
  .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, { error: 'must be the name of a header, such as X-Frame-Options' })

/** A field value (RFC 9110 §5.5) without obsolete characters. */
const headerValue = z.string().regex(/^[!-~](?:[\t -~]*[!-~])?$/, {
  error:
    'must be the value of a header: printable ASCII characters on one line, without a space at the start or the end',
})

const framing =
  'belongs to the connection or the length of a message (RFC 9110 §7.6.1), which mqway sets for each response'
const own = 'depends on the response, and mqway sets it'

/** Headers that no rule may set, with the reason. */
const refusedHeaders: ReadonlyMap<string, string> = new Map([
  ...'connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings content-length'
    .split(' ')
    .map(name => [name, framing] as const),
  ...'accept-ranges allow content-encoding content-range content-type date etag last-modified location proxy-authenticate retry-after status vary www-authenticate x-request-id'
    .split(' ')
    .map(name => [name, own] as const),
  ['set-cookie', 'would give everybody the same cookie: one of access.jwt.cookie would be everybody’s login'],
])

function headerProblem(name: string, value: string): string | undefined {
  const lower = name.toLowerCase()
  if (lower.startsWith('sec-websocket-')) return `must not be set: it ${own}`
  const reason = refusedHeaders.get(lower)
  if (reason !== undefined) return `must not be set: it ${reason}`
  if (lower === 'x-content-type-options' && value.toLowerCase() !== 'nosniff')
    return 'must be nosniff, which mqway sends in any case: messages of clients must not be taken for scripts'
  return undefined
}

const headerRule = z
  .strictObject({
    ...pathConditions,
    hosts: z
      .array(hostPattern)
      .min(1)
      .optional()
      .describe('Host names of the rule, as in tunnels: a.example, *.a.example or /regular expression/; default: any'),
    set: z.record(headerName, headerValue).describe('Headers with their values'),
  })
  .superRefine((rule, context) => {
    if (givenPaths(rule).length > 1)
      context.addIssue('needs one of path, pathPrefix, pathSuffix and pathPattern at most; none is for every path')
    const names = new Set<string>()
    for (const [name, value] of Object.entries(rule.set)) {
      const isTwice = names.size === names.add(name.toLowerCase()).size
      const message = isTwice ? 'is set twice: case makes no difference' : headerProblem(name, value)
      if (message !== undefined) context.addIssue({ code: 'custom', path: ['set', name], message, input: value })
    }
    if (names.size === 0) context.addIssue({ code: 'custom', path: ['set'], message: 'needs a header' })
  })

export const headers = z
  .array(headerRule)
  .default([])
  .describe('Response headers; every rule that matches applies, and of two with the same header the later one')

export type HeaderRule = z.output<typeof headerRule>

const contentCodings = ['br', 'zstd', 'gzip'] as const
export type ContentCoding = (typeof contentCodings)[number]

/** Media types that become smaller, and are not compressed already. */
const compressibleTypes = [
  'text/*',
  'application/javascript',
  'application/json',
  'application/manifest+json',
  'application/wasm',
  'application/xml',
  'application/xhtml+xml',
  'application/rss+xml',
  'application/atom+xml',
  'font/otf',
  'font/ttf',
  'image/svg+xml',
  'image/vnd.microsoft.icon',
]

const mediaType = z.string().regex(/^[\w!#$&^.+-]+\/(?:\*|[\w!#$&^.+-]+)$/, {
  error: 'must be a media type such as text/css, or text/*',
})

const compressionSettings = z.strictObject({
  encodings: z
    .array(z.enum(contentCodings, { error: `must be one of ${contentCodings.join(', ')}` }))
    .min(1)
    .default([...contentCodings])
    .describe(
      'Content codings, the preferred one first; zstd needs Node.js 22.15 or later, except for compressed files beside a file',
    ),
  threshold: size({ min: '64B', max: '4MiB' }).prefault('1KiB').describe('Smaller responses are not compressed'),
  types: z
    .array(mediaType)
    .default(compressibleTypes)
    .describe('Media types of files that are compressed; text/* for all that begin so'),
  polls: z
    .boolean()
    .default(false)
    .describe(
      'Compress responses of /v1/poll, too: not where messages are secret and others may publish beside them (BREACH)',
    ),
})

export const compression = z
  .union([z.literal('off'), compressionSettings], { error: 'must be off, or a mapping' })
  .prefault({})
  .describe('Compression of files, as the client accepts it; or off')

export type CompressionConfig = z.output<typeof compressionSettings>

/** `accessLog.file` for standard output. */
export const standardOutput = 'stdout'

export const accessLog = z
  .strictObject({
    file: file.describe('File to append to, or stdout; opened again at SIGHUP'),
    format: z
      .enum(['common', 'combined', 'json'])
      .default('combined')
      .describe('Common Log Format, the same with referer and user agent, or one JSON object in each line'),
  })
  .optional()
  .describe('A line for each request and WebSocket; default: none')
