import { encodeProperties, type Properties, variableByteInteger } from '../../mqtt/properties.js'
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

/** First bytes of the acknowledgements (MQTT 3.1.1 §3.4 to §3.7). */
const acknowledgementBytes = { puback: 0x40, pubrec: 0x50, pubrel: 0x62, pubcomp: 0x70 } as const

export interface Acknowledging {
  readonly id: number
  /** The reason code of MQTT 5; left out for success, and before MQTT 5. */
  readonly reason?: number | undefined
  readonly text?: string | undefined
}

export function encodeAcknowledgement(
  type: keyof typeof acknowledgementBytes,
  { id, reason, text }: Acknowledging,
): Buffer {
  const first = acknowledgementBytes[type]
  if (reason === undefined || (reason === 0 && text === undefined)) return Buffer.from([first, 2, id >> 8, id & 0xff])
  return packet(first, [Buffer.from([id >> 8, id & 0xff, reason]), ...(text === undefined ? [] : [reasonText(text)])])
}

/** SUBACK (`0x90`) or UNSUBACK (`0xb0`). @param codes reason codes, before MQTT 5 return codes; UNSUBACK has none then */
export function encodeGrants(
  first: 0x90 | 0xb0,
  id: number,
  codes: readonly number[],
  { isVersion5, text }: { readonly isVersion5: boolean; readonly text?: string | undefined },
): Buffer {
  const properties = isVersion5 ? [text === undefined ? withLength(Buffer.alloc(0)) : reasonText(text)] : []
  return packet(first, [Buffer.from([id >> 8, id & 0xff]), ...properties, Buffer.from(codes)])
}

/** A CONNACK of MQTT 5, or with the return code of an earlier version without `properties`. */
export function encodeConnack(isSessionPresent: boolean, code: number, properties?: Properties): Buffer {
  const head = Buffer.from([isSessionPresent ? 1 : 0, code])
  return packet(0x20, properties ? [head, withLength(encodeProperties(properties))] : [head])
}

function reasonText(reasonString: string): Buffer {
  return withLength(encodeProperties({ reasonString }))
}

function withLength(bytes: Buffer): Buffer {
  return Buffer.concat([variableByteInteger(bytes.length), bytes])
}

function packet(first: number, parts: readonly Buffer[]): Buffer {
  const length = encodedSize(parts)
  return Buffer.concat([Buffer.from([first]), variableByteInteger(length), ...parts])
}
