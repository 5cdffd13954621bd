import type { ServerHttp2Stream } from 'node:http2'
import type { FastifyInstance, FastifyRequest } from 'fastify'

/** The framework never reads the body of these. */
const bodiless: ReadonlySet<string> = new Set(['GET', 'HEAD'])

/**
 * Has the bodies of HTTP/2 requests dropped that nobody reads: of a GET, and of what says neither its type nor its length.
 *
 * What is not read waits in the flow-control window of its stream, 64 KiB for each of a hundred streams, and a stream whose
 * client has not ended it stays open when it has its answer: such a connection holds 6 MB and can ask for nothing more.
 * HTTP/1.1 has neither streams nor windows, and Node reads on for as long as a request may take.
 */
export function dropUnreadBodies(app: FastifyInstance): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const stream = openStreamOf(request)
    if (stream) {
      if (isUnread(request)) stream.resume()
      // The answer is complete, and the rest of the body no longer wanted (RFC 9113 §8.1). Not before the answer has left.
      stream.once('finish', () => setImmediate(() => stream.close()))
    }
    done()
  })
  // Node tells of no end where the headers are all there is.
  app.addHook('onSend', async request => {
    const stream = request.method === 'HEAD' ? openStreamOf(request) : undefined
    if (stream) setImmediate(() => stream.close())
  })
}

function isUnread({ method, headers }: FastifyRequest): boolean {
  return bodiless.has(method) || (headers['content-type'] === undefined && headers['content-length'] === undefined)
}

/** The stream of a request over HTTP/2 whose client may still send on it. */
function openStreamOf({ raw }: FastifyRequest): ServerHttp2Stream | undefined {
  if (raw.httpVersionMajor < 2 || !('stream' in raw)) return undefined
  // Fastify's types know requests of HTTP/1.1 alone here.
  const stream = raw.stream as ServerHttp2Stream
  return stream.endAfterHeaders || stream.destroyed ? undefined : stream
}
