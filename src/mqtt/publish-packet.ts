import type { IPublishPacket } from 'mqtt-packet'
import { MalformedPacket, MqttFields } from './fields.js'
import type { Message, QoS } from './message.js'
import { encodeProperties, type Properties, readMessageProperties } from './properties.js'

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

/** First byte of PUBLISH, and its flags (MQTT 3.1.1 §3.3.1). */
const [publishByte, dupBit, retainBit] = [0x30, 0x08, 0x01]

/** How a message is sent. */
export interface PublishForm {
  readonly isVersion5: boolean
  readonly qos: QoS
  readonly retain: boolean
  readonly dup: boolean
  /** The packet identifier; 0 with QoS 0. */
  readonly id: number
  /** Seconds until it expires; left out if it does not. */
  readonly expiry?: number | undefined
  /** Of the matching subscriptions. */
  readonly subscriptionIdentifiers?: readonly number[] | undefined
  /** The topic alias; `isKnown`: the client has it, so that the topic is left out. */
  readonly alias?: { readonly number: number; readonly isKnown: boolean } | undefined
}

export type PublishContent = Pick<Message, 'topic' | 'payload' | 'properties'>

/**
 * Encodes a PUBLISH.
 *
 * @param content its topic has up to 65,535 bytes in UTF-8, and the packet up to 268,435,455 after its length
 */
export function encodePublish(content: PublishContent, form: PublishForm): Buffer {
  const { payload } = content
  const head = encodeHead(content, form, payload.length)
  head.set(payload, head.length - payload.length)
  return head
}

/** Encodes a PUBLISH up to its payload, with `room` for that. */
export function encodeHead(content: PublishContent, form: PublishForm, room = 0): Buffer {
  const { qos, retain, dup, id, isVersion5 } = form
  const topic = form.alias?.isKnown ? '' : content.topic
  const topicLength = Buffer.byteLength(topic)
  const properties = isVersion5 ? publishProperties(content, form) : undefined
  const propertyBytes = properties === undefined ? 0 : lengthSize(properties.length) + properties.length
  const idBytes = qos === 0 ? 0 : 2
  const remaining = 2 + topicLength + idBytes + propertyBytes + content.payload.length
  const bytes = Buffer.allocUnsafe(1 + lengthSize(remaining) + remaining - content.payload.length + room)
  bytes[0] = publishByte | (qos << 1) | (retain ? retainBit : 0) | (dup ? dupBit : 0)
  let at = writeLength(bytes, 1, remaining)
  at = bytes.writeUInt16BE(topicLength, at)
  at += bytes.write(topic, at)
  if (qos > 0) at = bytes.writeUInt16BE(id, at)
  if (properties !== undefined) {
    at = writeLength(bytes, at, properties.length)
    bytes.set(properties, at)
  }
  return bytes
}

const nothing = Buffer.alloc(0)

function publishProperties({ properties }: PublishContent, form: PublishForm): Buffer {
  const { expiry, subscriptionIdentifiers, alias } = form
  if (expiry === undefined && !subscriptionIdentifiers && !alias) return properties ?? nothing
  const own: Properties = {
    ...(expiry !== undefined && { messageExpiryInterval: expiry }),
    ...(subscriptionIdentifiers && { subscriptionIdentifiers }),
    ...(alias && { topicAlias: alias.number }),
  }
  return Buffer.concat([encodeProperties(own), properties ?? nothing])
}

/** Bytes of a variable byte integer, with seven bits each (MQTT 3.1.1 §2.2.3). */
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

/**
 * The message expiry interval of a message that expires (MQTT 5 §3.3.2.3.3): whole seconds, rounded up.
 *
 * @param least the shortest interval
 */
export function secondsUntil(expires: number, least = 0): number {
  return Math.min(0xffff_ffff, Math.max(least, Math.ceil((expires - Date.now()) / 1000)))
}

/** Encodes a message in MQTT 5. @param id its packet identifier; none with QoS 0 */
export function encodeMessage(message: Message, id = 0): Buffer {
  const { qos, retain, expires } = message
  // With 0 it would expire on its way.
  const expiry = expires === undefined ? undefined : secondsUntil(expires, 1)
  return encodePublish(message, { isVersion5: true, qos, retain, dup: false, id, expiry })
}
