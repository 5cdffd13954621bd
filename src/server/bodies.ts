import type { FastifyInstance } from 'fastify'
import { GatewayError } from '../base/errors.js'
import { requireLargeChunks } from '../http/collected-chunks.js'

/**
 * Has every body read to its end and thrown away, whatever its type, as no route has a use for one: a body that was kept
 * until its end would let one address with a thousand HTTP/2 streams fill the memory. One of more than `limit` bytes
 * ends with `body-too-large`.
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
    // Whoever goes away in the middle has sent a bad request; it is no failure of the gateway's.
    const fail = (error: Error): void =>
      settle(error instanceof GatewayError ? error : Object.assign(error, { statusCode: 400 }))

    if (Number(request.headers['content-length']) > limit) return done(new GatewayError('body-too-large'))
    payload.on('data', count).on('end', succeed).on('error', fail)
  })
}
