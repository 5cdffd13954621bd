import { encodeHead, encodePublish, type PublishContent, type PublishForm } from '../../mqtt/publish-packet.js'
import type { TickScheduler } from './tick-scheduler.js'

/** Larger payloads are not copied, but sent as a buffer of their own, in bytes. */
export const maxCopiedPayload = 16 * 1024

/** Encodes each message once for all its subscribers that get it in the same form. */
export class PublishEncoder {
  readonly #tick: TickScheduler
  #content: PublishContent | undefined
  /** By form; those with a packet identifier are templates. */
  readonly #encoded = new Map<number, Buffer>()

  constructor(tick: TickScheduler) {
    this.#tick = tick
  }

  /** The packet in one buffer, or in two with a large payload. */
  encode(content: PublishContent, form: PublishForm): readonly Buffer[] {
    if (content.payload.length > maxCopiedPayload) return [encodeHead(content, form), content.payload]
    if (form.subscriptionIdentifiers || form.alias || (form.expiry ?? 0) >= maxKeyedExpiry) {
      return [encodePublish(content, form)]
    }
    const { isVersion5, qos, retain, dup, id, expiry = -1 } = form
    const key = (expiry + 1) * 32 + (isVersion5 ? 16 : 0) + qos * 4 + (retain ? 2 : 0) + (dup ? 1 : 0)
    if (!isSame(this.#content, content)) this.#begin(content)
    let encoded = this.#encoded.get(key)
    if (!encoded) {
      encoded = encodePublish(content, form)
      this.#encoded.set(key, encoded)
      return [encoded]
    }
    if (qos === 0) return [encoded]
    const copy = Buffer.from(encoded)
    copy.writeUInt16BE(id, identifierOffset(copy))
    return [copy]
  }

  /** A message of QoS 0 without further properties, in one buffer for all clients of a version. */
  shared(content: PublishContent, isVersion5: boolean, retain: boolean): Buffer {
    if (!isSame(this.#content, content)) this.#begin(content)
    const key = (isVersion5 ? 16 : 0) + (retain ? 2 : 0)
    let encoded = this.#encoded.get(key)
    if (!encoded) {
      encoded = encodePublish(content, { isVersion5, qos: 0, retain, dup: false, id: 0 })
      this.#encoded.set(key, encoded)
    }
    return encoded
  }

  #begin(content: PublishContent): void {
    if (!this.#content) this.#tick.add(this.#forget)
    this.#content = content
    this.#encoded.clear()
  }

  readonly #forget = (): void => {
    this.#content = undefined
    this.#encoded.clear()
  }
}

/** Seconds from which a form is not remembered. */
const maxKeyedExpiry = 2 ** 26

function isSame(content: PublishContent | undefined, other: PublishContent): boolean {
  return (
    content !== undefined &&
    content.payload === other.payload &&
    content.topic === other.topic &&
    content.properties === other.properties
  )
}

/** Where the packet identifier of an encoded PUBLISH is: after the remaining length and the topic. */
function identifierOffset(packet: Buffer): number {
  let at = 1
  while (((packet[at] ?? 0) & 0x80) !== 0) at++
  at++
  return at + 2 + packet.readUInt16BE(at)
}

/** Bytes of an encoded PUBLISH. */
export function encodedSize(parts: readonly Buffer[]): number {
  return parts.reduce((bytes, part) => bytes + part.length, 0)
}
