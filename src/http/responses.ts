import { STATUS_CODES } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Logger } from '../base/log.js'

/** Headers of every response: no content sniffing, no referrer. */
export const securityHeaders = {
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
} as const

/** The policy of error pages, which load nothing. */
const errorPagePolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const sentences: Readonly<Record<number, string>> = {
  400: 'The request could not be understood.',
  403: 'This is not open to you.',
  404: 'There is nothing at this address.',
  405: 'What is at this address can only be read.',
  412: 'It has changed in the meantime.',
  413: 'The request is too large.',
  416: 'The requested range is beyond the end of the file.',
  426: 'This is a WebSocket endpoint: connect to it with ws:// or wss:// and an MQTT client.',
  500: 'Something went wrong inside the gateway. Its log says what.',
  503: 'This is not available at the moment.',
}

/**
 * Sends a status and a sentence: as a page to browsers, as text otherwise.
 *
 * @param sentence may contain parts of the request, such as a topic
 */
export function sendStatus(
  request: FastifyRequest,
  reply: FastifyReply,
  status: number,
  headers: Readonly<Record<string, string>> = {},
  sentence: string = sentences[status] ?? STATUS_CODES[status] ?? 'Error',
): FastifyReply {
  addVary(reply, 'accept')
  const title = STATUS_CODES[status] ?? 'Error'
  const wantsPage = request.headers.accept?.includes('text/html') ?? false
  return reply
    .code(status)
    .headers({ ...securityHeaders, 'content-security-policy': errorPagePolicy, ...headers })
    .type(`${wantsPage ? 'text/html' : 'text/plain'}; charset=utf-8`)
    .send(wantsPage ? page(status, title, sentence) : `${sentence}\n`)
}

function page(status: number, title: string, sentence: string): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${status} ${title}</title>
<h1>${title}</h1>
<p>${escaped(sentence)}</p>
<p><a href="/">Start page</a></p>
</html>
`
}

/** Escapes text for HTML (HTML Living Standard §13.3). */
function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

/** Adds a header name to `Vary` (RFC 9110 §12.5.5). Idempotent. */
export function addVary(reply: FastifyReply, name: string): void {
  const said = reply.getHeader('vary')
  if (said === undefined) reply.header('vary', name)
  else if (!String(said).split(', ').includes(name)) reply.header('vary', `${String(said)}, ${name}`)
}

export interface LoggedRequest {
  readonly peer: string
  /** Its id in the access log, if there is one. */
  readonly requestId?: string
  readonly method: string
  /** Without the query, which may hold secrets. */
  readonly path: string
}

/**
 * Logs a request, at level debug.
 *
 * @param ms duration of the response, in milliseconds
 */
export function logRequest(log: Logger, request: LoggedRequest, status: number, ms: number): void {
  if (log.isLevelEnabled('debug')) log.debug({ ...request, status, ms: Math.round(ms * 10) / 10 }, 'request')
}
