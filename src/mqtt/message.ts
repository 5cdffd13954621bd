import { GatewayError } from '../base/errors.js'

/** Quality of service (MQTT 3.1.1 §4.3). */
export type QoS = 0 | 1 | 2

/** An application message. */
export interface Message {
  /** A topic name: without wildcards and U+0000 [MQTT-3.3.2-2], [MQTT-4.7.3-2]; at most 65,535 bytes. */
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  /** Whether it becomes its topic's retained message, or, without payload, removes that [MQTT-3.3.1-10]. */
  readonly retain: boolean
  /** Properties for the receivers, encoded without their length (`decodeMessageProperties`); left out without any. */
  readonly properties?: Buffer | undefined
  /** When it expires, in milliseconds since 1970; left out if it does not (MQTT 5 §3.3.2.3.3). */
  readonly expires?: number | undefined
}

/** Bytes of a string in MQTT (3.1.1 §1.5.3). */
const maxStringBytes = 65_535

/** Whether `topic` is a topic name, and not the broker's own. */
export function isPublishable(topic: string): boolean {
  // [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-1.5.3-1]
  if (topic === '' || /[+#\0]|\p{Cs}/u.test(topic) || Buffer.byteLength(topic) > maxStringBytes) return false
  // §4.7.2: reserved for the broker.
  return !/^\$(SYS|share)(\/|$)/.test(topic)
}

/**
 * Whether `topic` has neither control characters nor noncharacters, for which a broker may close the connection, as mosquitto does
 * (MQTT 3.1.1 §1.5.3, MQTT 5 §1.5.4).
 */
export function hasNoControls(topic: string): boolean {
  return !/[\p{Cc}\p{Noncharacter_Code_Point}]/u.test(topic)
}

/**
 * Upper bound of the bytes of a message's PUBLISH packet: fixed header, topic with its length, packet identifier, properties with their length
 * and message expiry, payload.
 */
export function publishSize({
  topic,
  payload,
  properties,
  expires,
}: Pick<Message, 'topic' | 'payload' | 'properties' | 'expires'>): number {
  const propertyBytes = properties === undefined && expires === undefined ? 0 : 4 + 5 + (properties?.length ?? 0)
  return 5 + 2 + Buffer.byteLength(topic) + 2 + propertyBytes + payload.length
}

/**
 * Checks that a broker accepts a message, as it may close the shared connection otherwise.
 *
 * @param packetSize the largest packet that the broker accepts, in bytes
 * @throws {GatewayError} `topic-refused`, `body-too-large`
 */
export function requirePublishable(message: Message, packetSize = Number.POSITIVE_INFINITY): void {
  if (!isPublishable(message.topic)) throw new GatewayError('topic-refused', { hint: 'it is not a topic name' })
  if (!hasNoControls(message.topic)) {
    throw new GatewayError('topic-refused', { hint: 'it has control characters, for which brokers close connections' })
  }
  if (publishSize(message) <= packetSize) return
  throw new GatewayError('body-too-large', {
    hint: `the broker accepts packets of at most ${packetSize} bytes (embedded.maxPacketSize)`,
  })
}
