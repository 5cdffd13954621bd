import type { ServerHttp2Stream } from 'node:http2'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { GatewayError } from '../base/errors.js'
import { requireLargeChunks } from '../http/collected-chunks.js'

/** Methods whose bodies Fastify never reads. */
const bodiless: ReadonlySet<string> = new Set(['GET', 'HEAD'])

/**
 * Limits the time that a body takes to `milliseconds`; beyond: `body-timeout`. Node's own limit is for HTTP/1.1 only, and closes a connection that has
 * had a response without another one.
 */
export function limitBodyTime(app: FastifyInstance, milliseconds: number): void {
  const timers = new WeakMap<FastifyRequest, NodeJS.Timeout>()
  app.addHook('preParsing', (request, _reply, payload, done) => {
    if (bodiless.has(request.method)) return done(null, payload)
    const timedOut = (): void => {
      // An 'error' event without a listener would end the process.
      if (payload.listenerCount('error') > 0) payload.emit('error', new GatewayError('body-timeout'))
    }
    timers.set(request, setTimeout(timedOut, milliseconds).unref())
    done(null, payload)
  })
  const stop = (request: FastifyRequest, _reply: unknown, done: () => void): void => {
    if (!bodiless.has(request.method)) clearTimeout(timers.get(request))
    done()
  }
  app.addHook('preValidation', stop)
  app.addHook('onResponse', stop)
}

/**
 * Reads and discards the body of each request whose route does not buffer it, whatever its type: buffered, those of one address with a thousand
 * HTTP/2 streams would fill the memory. A body of more than `limit` bytes is refused with `body-too-large`.
 */
export function discardBodies(app: FastifyInstance, limit: number): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (request, payload, done) => {
    let [size, chunks] = [0, 0]
    const settle = (error: Error | null): void => {
      payload.off('data', count).off('end', succeed).off('error', fail)
      done(error)
    }
    const count = (chunk: Buffer): void => {
      size += chunk.length
      chunks += 1
      try {
        if (size > limit) throw new GatewayError('body-too-large')
        requireLargeChunks(chunks, size)
      } catch (error) {
        settle(GatewayError.from(error))
      }
    }
    const succeed = (): void => settle(null)
    // A client that leaves before the end has sent a bad request; the gateway has not failed.
    const fail = (error: Error): void =>
      settle(error instanceof GatewayError ? error : Object.assign(error, { statusCode: 400 }))

    if (Number(request.headers['content-length']) > limit) return done(new GatewayError('body-too-large'))
    payload.on('data', count).on('end', succeed).on('error', fail)
  })
}

/**
 * Discards bodies of HTTP/2 requests that Fastify does not read: those of GET, and those without type and length.
 *
 * Unread, a body waits in the flow-control window of its stream, and a stream that its client has not ended stays open after its response: 64 KiB for
 * each of a hundred streams. Over HTTP/1.1, Node reads such a body.
 */
export function dropUnreadBodies(app: FastifyInstance): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const stream = openStreamOf(request)
    if (stream) {
      if (isUnread(request)) stream.resume()
      // After the response, the rest of the body is not wanted (RFC 9113 §8.1).
      stream.once('finish', () => setImmediate(() => stream.close()))
    }
    done()
  })
  // Node emits no 'finish' for a response of headers only.
  app.addHook('onSend', async request => {
    const stream = request.method === 'HEAD' ? openStreamOf(request) : undefined
    if (stream) setImmediate(() => stream.close())
  })
}

function isUnread({ method, headers }: FastifyRequest): boolean {
  return bodiless.has(method) || (headers['content-type'] === undefined && headers['content-length'] === undefined)
}

/** The HTTP/2 stream of a request, if its client may still send on it. */
function openStreamOf({ raw }: FastifyRequest): ServerHttp2Stream | undefined {
  if (raw.httpVersionMajor < 2 || !('stream' in raw)) return undefined
  // Fastify's types know requests of HTTP/1.1 only.
  const stream = raw.stream as ServerHttp2Stream
  return stream.endAfterHeaders || stream.destroyed ? undefined : stream
}
