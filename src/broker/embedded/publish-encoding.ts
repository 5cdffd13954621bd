import type { PublishPacket } from 'aedes'
import type { TickScheduler } from './tick-scheduler.js'

/** First byte of a PUBLISH of QoS 0, and its RETAIN bit (MQTT 3.1.1 §3.3.1). */
const [publishQos0, retainBit] = [0x30, 0x01]

/** Encodes each message once for all its subscribers. */
export class PublishEncoder {
  readonly #tick: TickScheduler
  #topic = ''
  #payload: string | Buffer = ''
  #retain = false
  #encoded: Buffer | undefined

  constructor(tick: TickScheduler) {
    this.#tick = tick
  }

  encode({ topic, payload, retain }: Pick<PublishPacket, 'topic' | 'payload' | 'retain'>): Buffer {
    const isSame = payload === this.#payload && topic === this.#topic && retain === this.#retain
    if (this.#encoded && isSame) return this.#encoded
    if (!this.#encoded) this.#tick.add(this.#forget)
    this.#topic = topic
    this.#payload = payload
    this.#retain = retain
    this.#encoded = encodePublish(topic, payload, retain)
    return this.#encoded
  }

  readonly #forget = (): void => {
    this.#payload = ''
    this.#encoded = undefined
  }
}

/**
 * Encodes a PUBLISH packet of QoS 0, the same for all subscribers, and in MQTT 3.1 and 3.1.1.
 *
 * @param topic up to 65,535 bytes in UTF-8
 * @param payload up to what the remaining length of 268,435,455 bytes leaves room for
 */
export function encodePublish(topic: string, payload: string | Buffer, retain = false): Buffer {
  const topicLength = Buffer.byteLength(topic)
  const remaining = 2 + topicLength + Buffer.byteLength(payload)
  const bytes = Buffer.allocUnsafe(1 + lengthSize(remaining) + remaining)
  bytes[0] = retain ? publishQos0 | retainBit : publishQos0
  let at = writeLength(bytes, 1, remaining)
  at = bytes.writeUInt16BE(topicLength, at)
  at += bytes.write(topic, at)
  if (typeof payload === 'string') bytes.write(payload, at)
  else bytes.set(payload, at)
  return bytes
}

/** Bytes of the remaining length, with seven bits each (§2.2.3). */
function lengthSize(length: number): number {
  return length < 0x80 ? 1 : length < 0x4000 ? 2 : length < 0x20_0000 ? 3 : 4
}

/** Returns where the next field begins. */
function writeLength(bytes: Buffer, start: number, length: number): number {
  let at = start
  for (let rest = length; ; rest >>>= 7) {
    const isLast = rest < 0x80
    bytes[at++] = isLast ? rest : (rest & 0x7f) | 0x80
    if (isLast) return at
  }
}
