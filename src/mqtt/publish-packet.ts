import type { IPublishPacket } from 'mqtt-packet'
import { MalformedPacket, MqttFields } from './fields.js'
import type { Message, QoS } from './message.js'
import { encodeProperties, readMessageProperties, variableByteInteger } from './properties.js'

/** A received PUBLISH. */
export interface ReceivedMessage extends Message {
  readonly dup: boolean
  /** Left out for QoS 0. */
  readonly messageId?: number | undefined
}

/** The message of a PUBLISH of MQTT 3.1.1, as `mqtt-packet` parses it. */
export function receivedMessage(packet: IPublishPacket): ReceivedMessage {
  const { topic, payload, qos, retain, dup, messageId } = packet
  return { topic, payload: typeof payload === 'string' ? Buffer.from(payload) : payload, qos, retain, dup, messageId }
}

/**
 * Reads a PUBLISH of MQTT 5 (§3.3) from a server, with its properties as they are, which `mqtt-packet` neither orders nor repeats.
 *
 * @param flags the first byte of the fixed header
 * @param body the packet without the fixed header; the payload is a slice of it
 * @throws {MalformedPacket}
 */
export function readPublish(flags: number, body: Buffer): ReceivedMessage {
  const fields = new MqttFields(body)
  const qos = readQos((flags >> 1) & 3)
  const topic = fields.binary().toString()
  const messageId = qos === 0 ? undefined : fields.integer()
  const { own, encoded } = readMessageProperties(fields, 'publish') ?? {}
  const interval = own?.messageExpiryInterval
  return {
    ...{ topic, payload: fields.part(fields.left), qos, retain: (flags & 1) !== 0, dup: (flags & 8) !== 0, messageId },
    ...(encoded && { properties: encoded }),
    ...(interval !== undefined && { expires: Date.now() + interval * 1000 }),
  }
}

function readQos(value: number): QoS {
  if (value === 0 || value === 1 || value === 2) return value
  throw new MalformedPacket('its QoS is 3')
}

/** Encodes a PUBLISH of MQTT 5 (§3.3). */
export function encodePublish({ topic, payload, qos, retain, properties, expires }: Message, messageId = 0): Buffer {
  const name = Buffer.from(topic)
  const id = qos === 0 ? [] : [messageId >> 8, messageId & 0xff]
  const expiry =
    expires === undefined ? Buffer.alloc(0) : encodeProperties({ messageExpiryInterval: secondsTo(expires) })
  const all = [expiry, ...(properties ? [properties] : [])]
  const propertyLength = variableByteInteger(all.reduce((sum, { length }) => sum + length, 0))
  const parts = [
    Buffer.from([name.length >> 8, name.length & 0xff]),
    name,
    Buffer.from(id),
    propertyLength,
    ...all,
    payload,
  ]
  const remaining = parts.reduce((sum, { length }) => sum + length, 0)
  const header = Buffer.from([0x30 | (qos << 1) | (retain ? 1 : 0), ...variableByteInteger(remaining)])
  return Buffer.concat([header, ...parts])
}

/** Whole seconds until a message expires, rounded up, at least 1: with 0 it would expire on its way. */
function secondsTo(expires: number): number {
  return Math.min(0xffff_ffff, Math.max(1, Math.ceil((expires - Date.now()) / 1000)))
}
