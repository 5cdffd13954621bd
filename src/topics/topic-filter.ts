import { hasForbiddenCharacter } from './forbidden-characters.js'

/** How large topics and filters may be. */
export interface TopicBounds {
  /** Levels, that is: one more than there are slashes. Aedes takes no more than 100. */
  readonly topicLevels: number
  /** Bytes of UTF-8. A length of two bytes is before each string in MQTT 3.1.1 §1.5.3: no more than 65,535. */
  readonly topicLength: number
}

/**
 * Whether `text` is a topic filter: not empty [MQTT-4.7.3-1], `#` alone in the last level [MQTT-4.7.1-2], `+` alone in
 * its level [MQTT-4.7.1-3], no forbidden character [MQTT-4.7.3-2]; and within bounds.
 */
export function isTopicFilter(text: string, bounds: TopicBounds): boolean {
  if (text === '' || !isWithin(text, bounds) || hasForbiddenCharacter(text)) return false
  const last = text.length - 1
  for (let at = 0; at <= last; at++) {
    const code = text.charCodeAt(at)
    if (code !== plus && code !== hash) continue
    if (at > 0 && text.charCodeAt(at - 1) !== slash) return false
    if (at < last && (code === hash || text.charCodeAt(at + 1) !== slash)) return false
  }
  return true
}

const [hash, plus, slash] = [35, 43, 47]

/** Whether a topic or a filter is no larger than `bounds`. Asked for each message that comes in: nothing is allocated. */
export function isWithin(topic: string, { topicLevels, topicLength }: TopicBounds): boolean {
  // One UTF-16 unit is three bytes of UTF-8 at most, so most texts need not be measured.
  if (topic.length * 3 > topicLength && Buffer.byteLength(topic) > topicLength) return false
  let levels = 1
  for (let at = topic.indexOf('/'); at !== -1; at = topic.indexOf('/', at + 1)) levels++
  return levels <= topicLevels
}
