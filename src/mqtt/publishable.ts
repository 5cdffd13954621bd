import { GatewayError } from '../base/errors.js'
import type { Message } from './message.js'

/** A length of two bytes is before each string (MQTT 3.1.1 §1.5.3). */
const maxBytes = 65_535

/** Whether a message may be published to `topic`: a topic name that is not the broker's own. */
export function isPublishable(topic: string): boolean {
  // [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-1.5.3-1]
  if (topic === '' || /[+#\0]|\p{Cs}/u.test(topic) || Buffer.byteLength(topic) > maxBytes) return false
  // §4.7.2: topics that begin with $ are what brokers make of them.
  return !/^\$(SYS|share)(\/|$)/.test(topic)
}

/**
 * Whether no broker may take `topic` for malformed: with control characters or non-characters in it, one MAY close the
 * connection [MQTT-1.5.4-2] (MQTT 5; MQTT 3.1.1 §1.5.3 says the same), as mosquitto does.
 */
export function isHarmless(topic: string): boolean {
  return !/[\p{Cc}\p{Noncharacter_Code_Point}]/u.test(topic)
}

/** Bytes of the PUBLISH packet of a message in MQTT 3.1.1, at most: its head, the topic with its length, an identifier. */
export function publishSize({ topic, payload }: Pick<Message, 'topic' | 'payload'>): number {
  return 5 + 2 + Buffer.byteLength(topic) + 2 + payload.length
}

/**
 * Sees to it that a message may be published: a broker would end the connection for others.
 *
 * @param packetSize the largest packet that the broker takes, in bytes
 * @throws {GatewayError} `topic-refused`, `body-too-large`
 */
export function requirePublishable(message: Message, packetSize = Number.POSITIVE_INFINITY): void {
  if (!isPublishable(message.topic)) throw new GatewayError('topic-refused', { hint: 'it is no topic to publish to' })
  if (!isHarmless(message.topic)) {
    throw new GatewayError('topic-refused', { hint: 'it has control characters, for which brokers end connections' })
  }
  if (publishSize(message) <= packetSize) return
  throw new GatewayError('body-too-large', {
    hint: `the broker takes packets of ${packetSize} bytes (embedded.maxPacketSize)`,
  })
}
