import type { AedesPublishPacket, PublishPacket } from 'aedes'
import type { Message } from '../../mqtt/message.js'

/** What Aedes carries from the parser to the delivery as `properties`, unread: the encoded properties for the receivers (`Message.properties`). */
interface CarriedProperties {
  readonly encoded?: Buffer
}

type Carrier = Pick<PublishPacket, 'topic'> & {
  readonly properties?: object
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
