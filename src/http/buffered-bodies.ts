import type { FastifyInstance, FastifyRequest } from 'fastify'
import { GatewayError } from '../base/errors.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import type { BodyBudget, BodySender, HeldBytes } from './body-budget.js'
import { CollectedChunks } from './collected-chunks.js'
import { acceptedEncodings, bodyDecoder, contentEncodingOf } from './content-encoding.js'

/** Bounds of request bodies. */
export interface BodyLimits {
  /** Bytes of one body. */
  readonly limit: number
  /** Bytes of all unfinished bodies. */
  readonly budget: BodyBudget
  /** Milliseconds until a body, or a message over a WebSocket, is complete. */
  readonly timeout: number
  /** Values of a JSON body, as for `exceededJsonBound`. */
  readonly jsonValues: number
  /** Told when a body is complete. */
  readonly slices?: SliceMonitor | undefined
}

export interface BufferedBodiesOptions extends Pick<BodyLimits, 'limit' | 'budget' | 'slices'> {
  readonly senderOf: (request: FastifyRequest) => BodySender
}

/**
 * Buffers request bodies of any type for the routes of `scope`, a plugin's instance whose hooks authenticate the sender before. Bodies count until
 * the request is answered. Compressed bodies are decoded.
 */
export function bufferBodies(scope: FastifyInstance, { limit, budget, slices, senderOf }: BufferedBodiesOptions): void {
  const accounts = new WeakMap<FastifyRequest, HeldBytes>()
  const closed = new WeakSet<FastifyRequest>()
  const decodeBody = bodyDecoder()
  scope.addHook('onRequest', (request, reply, done) => {
    reply.header('accept-encoding', acceptedEncodings)
    contentEncodingOf(request.headers['content-encoding'])
    reply.removeHeader('accept-encoding')
    // Of the response: the request emits no 'close' if its client leaves after the response.
    reply.raw.once('close', () => {
      closed.add(request)
      accounts.get(request)?.resize(0)
    })
    done()
  })
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('*', (request, payload, done) => {
    const chunks = new CollectedChunks()
    const held = budget.open(senderOf(request))
    accounts.set(request, held)
    let settled = false
    const settle = (error: Error | null, body?: Buffer): void => {
      if (settled) return
      settled = true
      if (error) held.resize(0)
      payload.off('data', keep).off('end', succeed).off('error', fail)
      done(error, body)
    }
    const keep = (chunk: Buffer): void => {
      try {
        if (chunks.size + chunk.length > limit) throw tooLarge(limit)
        held.resize(chunks.size + chunk.length)
        chunks.push(chunk)
      } catch (error) {
        chunks.clear()
        settle(GatewayError.from(error))
      }
    }
    const succeed = (): void => {
      slices?.begin('http body', request.raw)
      const encoding = contentEncodingOf(request.headers['content-encoding'])
      const body = chunks.take()
      if (encoding === undefined) settle(null, body)
      else decodeBody(body, encoding, limit).then(keepDecoded).catch(fail)
    }
    const keepDecoded = (body: Buffer): void => {
      if (closed.has(request)) return fail(new Error('The client has left'))
      held.resize(body.length)
      settle(null, body)
    }
    // A client that leaves before the end has sent a bad request; the gateway has not failed.
    const fail = (error: Error): void =>
      settle(error instanceof GatewayError ? error : Object.assign(error, { statusCode: 400 }))

    if (closed.has(request)) return fail(new Error('The client has left'))
    if (Number(request.headers['content-length']) > limit) return done(tooLarge(limit))
    payload.on('data', keep).on('end', succeed).on('error', fail)
  })
}

function tooLarge(limit: number): GatewayError {
  return new GatewayError('body-too-large', { hint: `it may have ${limit} bytes (limits.bodySize)` })
}
