import { createHash } from 'node:crypto'
import type { Message } from '../mqtt/message.js'

/** Topic and payload of a delivery. */
export function deliveryDigest({ topic, payload }: Pick<Message, 'topic' | 'payload'>): string {
  return createHash('sha256').update(topic).update('\0').update(payload).digest('base64')
}
