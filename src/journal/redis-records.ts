import type { Message, QoS } from '../mqtt/message.js'
import { type Event, formatId, gapMarker, isGapMarker } from './event.js'
import { PayloadCopier, unsharedPayload } from './payload-copies.js'

/*
 * Records of the journal in Redis: one entry of the stream each, whose id has the event's sequence.
 *
 *   flags (1)  layout (4)  share (2)  time (8)  [expires (8)]  length of the topic (2)  topic
 *   [length of the properties (4)  properties]  payload
 *
 * A gap marker has no topic; one with a payload begins the epoch that the payload names.
 */

const [retainFlag, propertiesFlag, expiresFlag] = [4, 8, 16]
const headerLength = 1 + 4 + 2 + 8

/** The layout of a record that belongs to any. */
export const anyLayout = 0

export interface RedisRecord {
  readonly event: Event
  readonly message: Message
  /** Number of the rules that `share` is of. */
  readonly layout: number
  readonly share: number
  /** The epoch that begins with it; left out for other records. */
  readonly epoch?: string | undefined
}

export function encodeRecord(message: Message, place: { layout: number; share: number; time: number }): Buffer {
  const { topic, payload, qos, retain, properties, expires } = message
  const head = Buffer.allocUnsafe(headerLength + (expires === undefined ? 0 : 8) + 2)
  const extras = (properties ? propertiesFlag : 0) | (expires === undefined ? 0 : expiresFlag)
  head.writeUInt8(qos | (retain ? retainFlag : 0) | extras, 0)
  head.writeUInt32BE(place.layout, 1)
  head.writeUInt16BE(place.share, 5)
  head.writeDoubleBE(place.time, 7)
  let at = headerLength
  if (expires !== undefined) at = head.writeDoubleBE(expires, at)
  const name = Buffer.from(topic)
  head.writeUInt16BE(name.length, at)
  if (!properties) return Buffer.concat([head, name, payload])
  const length = Buffer.allocUnsafe(4)
  length.writeUInt32BE(properties.length)
  return Buffer.concat([head, name, length, properties, payload])
}

/** @throws {RangeError} if it is no record */
export function decodeRecord(
  record: Buffer,
  { epoch, sequence, copier }: { epoch: string; sequence: number; copier: PayloadCopier },
): RedisRecord {
  const flags = record.readUInt8(0)
  let at = headerLength
  const expires = flags & expiresFlag ? record.readDoubleBE(at) : undefined
  if (expires !== undefined) at += 8
  const topicEnd = at + 2 + record.readUInt16BE(at)
  const topic = record.toString('utf8', at + 2, topicEnd)
  at = topicEnd
  let properties: Buffer | undefined
  if (flags & propertiesFlag) {
    const start = at + 4
    at = start + record.readUInt32BE(at)
    properties = copier.of(record.subarray(start, at))
  }
  if (at > record.length) throw new RangeError('a record of the journal is too short')
  const begins = isGapMarker({ topic }) && record.length > at ? record.toString('latin1', at) : undefined
  const payload = begins === undefined ? copier.of(record.subarray(at)) : gapMarker.payload
  const qos = (flags & 3) as QoS
  const extras = { ...(properties && { properties }), ...(expires !== undefined && { expires }) }
  const id = formatId(begins ?? epoch, sequence)
  return {
    event: { id, sequence, topic, time: record.readDoubleBE(7), payload, qos, retained: false, ...extras },
    message: { topic, payload, qos, retain: (flags & retainFlag) !== 0, ...extras },
    layout: record.readUInt32BE(1),
    share: record.readUInt16BE(5),
    ...(begins !== undefined && { epoch: begins }),
  }
}

/** A retained message: its sequence as text, a space, and its record. */
export function decodeRetained(value: Buffer, epoch: string): RedisRecord {
  const end = value.indexOf(0x20)
  const sequence = Number(value.toString('latin1', 0, end))
  if (end < 1 || !Number.isSafeInteger(sequence)) throw new RangeError('not a retained message of the journal')
  return decodeRecord(value.subarray(end + 1), { epoch, sequence, copier: new UnsharedCopier() })
}

class UnsharedCopier extends PayloadCopier {
  override of(payload: Buffer): Buffer {
    return unsharedPayload(payload)
  }
}
