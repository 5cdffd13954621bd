import type { FastifyInstance } from 'fastify'
import { Ending } from '../endings.js'

/** Bounds on the bodies of requests. */
export interface BodyLimits {
  /** Of one, in bytes. */
  readonly limit: number
  /** Of all that are being received, together. */
  readonly budget: BodyBudget
}

/**
 * Bytes of bodies that have begun to come and are not complete: one for the whole gateway, because a thousand streams of
 * one HTTP/2 connection may each have begun one.
 */
export class BodyBudget {
  readonly #most: number
  #used = 0

  /** @param most in bytes */
  constructor(most: number) {
    this.#most = most
  }

  get used(): number {
    return this.#used
  }

  /** @throws {Ending} `bodies-too-many` */
  take(bytes: number): void {
    if (this.#used + bytes > this.#most) throw new Ending('bodies-too-many')
    this.#used += bytes
  }

  giveBack(bytes: number): void {
    this.#used -= bytes
  }
}

/**
 * Has bodies kept, as `Buffer`s whatever their type, for the routes of `scope`: a plugin's instance, with hooks of its own
 * that ask who sends one before any of it is kept.
 */
export function keepBodies(scope: FastifyInstance, { limit, budget }: BodyLimits): void {
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('*', (request, payload, done) => {
    const chunks: Buffer[] = []
    let size = 0
    let settled = false
    const settle = (error: Error | null, body?: Buffer): void => {
      if (settled) return
      settled = true
      payload.off('data', keep).off('end', succeed).off('error', fail)
      done(error, body)
    }
    const keep = (chunk: Buffer): void => {
      try {
        if (size + chunk.length > limit) throw tooLarge(limit)
        budget.take(chunk.length)
        size += chunk.length
        chunks.push(chunk)
      } catch (error) {
        chunks.length = 0
        settle(Ending.from(error))
      }
    }
    const succeed = (): void => settle(null, Buffer.concat(chunks, size))
    // Whoever goes away in the middle has sent a bad request; it is no failure of the gateway's.
    const fail = (error: Error): void =>
      settle(error instanceof Ending ? error : Object.assign(error, { statusCode: 400 }))

    if (Number(request.headers['content-length']) > limit) return done(tooLarge(limit))
    request.raw.once('close', () => budget.giveBack(size))
    payload.on('data', keep).on('end', succeed).on('error', fail)
  })
}

function tooLarge(limit: number): Ending {
  return new Ending('body-too-large', { hint: `it may have ${limit} bytes (limits.bodySize)` })
}
