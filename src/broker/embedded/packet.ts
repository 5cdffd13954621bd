import type { AedesPublishPacket, PublishPacket } from 'aedes'
import type { Message } from '../../mqtt/message.js'

/**
 * The member `properties` of a packet, which Aedes carries unread from the parser to the delivery: the encoded properties for the receivers
 * (`Message.properties`), and in a session's queue the identifiers of its matching subscriptions.
 */
interface CarriedProperties {
  readonly encoded?: Buffer
  readonly subscriptionIdentifiers?: readonly number[]
}

type Carrier = Pick<PublishPacket, 'topic'> & {
  readonly properties?: object | undefined
  readonly messageExpiry?: number | undefined
}

/** The encoded properties of a packet, and when it expires. */
export function propertiesOf(packet: Carrier): Pick<Message, 'properties' | 'expires'> {
  const encoded = (packet.properties as CarriedProperties | undefined)?.encoded
  return {
    ...(encoded && { properties: encoded }),
    ...(packet.messageExpiry !== undefined && { expires: packet.messageExpiry }),
  }
}

/** Of a queued message: the identifiers of the session's subscriptions that matched it. */
export function subscriptionIdentifiersOf({ properties }: Pick<Carrier, 'properties'>): readonly number[] | undefined {
  return (properties as CarriedProperties | undefined)?.subscriptionIdentifiers
}

/** The packet for a session, with the identifiers of its matching subscriptions. */
export function withSubscriptionIdentifiers<Packet extends Carrier>(packet: Packet, ids: readonly number[]): Packet {
  return { ...packet, properties: { ...packet.properties, subscriptionIdentifiers: ids } }
}

/** Bytes of a packet's encoded properties. */
export function propertyBytes({ properties }: Pick<Carrier, 'properties'>): number {
  return (properties as CarriedProperties | undefined)?.encoded?.length ?? 0
}

/** Whether a packet's time is over [MQTT-3.3.2-5]; it is over with no second left. */
export function isExpired({ messageExpiry }: Pick<Carrier, 'messageExpiry'>, now = Date.now()): boolean {
  return messageExpiry !== undefined && messageExpiry <= now
}

/** The members of a packet that carry encoded properties and expiry. */
export function carried({ properties, expires }: Pick<Message, 'properties' | 'expires'>): object {
  return {
    ...(properties && { properties: { encoded: properties } }),
    ...(expires !== undefined && { messageExpiry: expires }),
  }
}

/** The message of a packet that the broker delivers. */
export function messageOf(packet: AedesPublishPacket): Message {
  const { topic, payload, qos, retain } = packet
  const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
  return { topic, payload: bytes, qos, retain, ...propertiesOf(packet) }
}

/** A packet for Aedes to publish. */
export function packetOf({ topic, payload, qos, retain, ...rest }: Message): PublishPacket {
  return { cmd: 'publish', topic, payload, qos, retain, dup: false, ...carried(rest) }
}
