import type { IPublishPacket } from 'mqtt-packet'
import type { Message } from './message.js'

/** The message of a packet. */
export function messageOf({ topic, payload, qos, retain }: IPublishPacket): Message {
  return { topic, payload: typeof payload === 'string' ? Buffer.from(payload) : payload, qos, retain }
}
