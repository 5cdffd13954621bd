import type { Message } from '../mqtt/message.js'
import type { Event } from './event.js'

/** Size of the blocks for small payloads, in bytes. */
const blockSize = 8192

/**
 * Copies payloads that are a small part of a larger buffer, such as a read of 64 KiB, which they would keep in memory.
 *
 * Small copies share blocks with their neighbours, which live as long, to save the overhead of a buffer each. Node's pool would mix them with
 * other buffers.
 */
export class PayloadCopier {
  #block = Buffer.alloc(0)
  #used = 0

  of(payload: Buffer): Buffer {
    const { length } = payload
    if (length * 2 > payload.buffer.byteLength) return payload
    if (length * 4 > blockSize) return unsharedPayload(payload)
    if (this.#used + length > this.#block.length) {
      this.#block = Buffer.allocUnsafeSlow(blockSize)
      this.#used = 0
    }
    const own = this.#block.subarray(this.#used, this.#used + length)
    payload.copy(own)
    this.#used += length
    return own
  }
}

/** A payload with a buffer of its own, for one that outlives its neighbours. */
export function unsharedPayload(payload: Buffer): Buffer {
  if (payload.length === payload.buffer.byteLength) return payload
  const own = Buffer.allocUnsafeSlow(payload.length)
  payload.copy(own)
  return own
}

/** The event with the payload and the properties in buffers of their own. */
export function unsharedEvent(event: Event): Event {
  const payload = unsharedPayload(event.payload)
  return event.properties ? { ...event, payload, properties: unsharedPayload(event.properties) } : { ...event, payload }
}

/** The event with the message's properties, copied, and its expiry; most messages have neither. */
export function withExtras(
  event: Event,
  { properties, expires }: Pick<Message, 'properties' | 'expires'>,
  copier: PayloadCopier,
): Event {
  if (properties === undefined && expires === undefined) return event
  return {
    ...event,
    ...(properties && { properties: copier.of(properties) }),
    ...(expires !== undefined && { expires }),
  }
}
