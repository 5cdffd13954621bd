/*
 * Topic names and topic filters as in MQTT 3.1.1 §4.7: what is valid, and how large it is.
 */

/** Bounds of topics and filters. */
export interface TopicBounds {
  /** Levels: one more than there are slashes. Aedes takes at most 100. */
  readonly topicLevels: number
  /** Bytes of UTF-8. MQTT encodes a string's length in two bytes (3.1.1 §1.5.3): at most 65,535. */
  readonly topicLength: number
}

/** Levels of a filter that mqway accepts; Aedes takes as many. Matching takes as much stack as a filter has levels. */
export const maxFilterLevels = 100

/** Bytes of a string in MQTT (3.1.1 §1.5.3). */
const maxStringBytes = 65_535

/** Levels of a topic or a filter. Allocates nothing. */
export function levelCount(topic: string): number {
  let levels = 1
  for (let at = topic.indexOf('/'); at !== -1; at = topic.indexOf('/', at + 1)) levels++
  return levels
}

/** Whether a topic or a filter is within `bounds`. Called for each incoming message: allocates nothing. */
export function isWithinBounds(topic: string, { topicLevels, topicLength }: TopicBounds): boolean {
  // A UTF-16 unit has at most three bytes in UTF-8, so that most texts need not be measured.
  if (topic.length * 3 > topicLength && Buffer.byteLength(topic) > topicLength) return false
  return levelCount(topic) <= topicLevels
}

/** Whether `topic` is a topic name within `bounds`: not empty, without wildcards [MQTT-3.3.2-2] and forbidden characters. */
export function isTopicName(topic: string, bounds: TopicBounds): boolean {
  return topic !== '' && !hasWildcard(topic) && isWithinBounds(topic, bounds) && !hasForbiddenCharacter(topic)
}

/** Whether `filter` is a topic filter within `bounds`. */
export function isTopicFilter(filter: string, bounds: TopicBounds): boolean {
  return isWithinBounds(filter, bounds) && topicFilterProblem(filter) === undefined
}

/** Whether a valid topic filter has a wildcard. */
export function hasWildcard(filter: string): boolean {
  return filter.includes('+') || filter.includes('#')
}

/** Returns why `filter` is no topic filter (MQTT 3.1.1 §4.7), to follow the filter: `must …`; `undefined` if it is one. */
export function topicFilterProblem(filter: string): string | undefined {
  if (filter === '') return 'must not be empty' // [MQTT-4.7.3-1]
  if (filter.includes('\0')) return 'must not hold U+0000' // [MQTT-4.7.3-2]
  if (hasForbiddenCharacter(filter)) return 'must not hold control characters, or what is no character' // [MQTT-1.5.3-1]
  if (Buffer.byteLength(filter) > maxStringBytes) return `must have at most ${maxStringBytes} bytes` // [MQTT-4.7.3-3]
  if (!hasWildcard(filter)) return undefined
  const levels = filter.split('/')
  for (const [index, level] of levels.entries()) {
    if (level.includes('+') && level !== '+') return 'must have + alone in its level, as in news/+/sport' // [MQTT-4.7.1-3]
    if (!level.includes('#')) continue
    if (level !== '#') return 'must have # alone in its level, as in news/#' // [MQTT-4.7.1-2]
    if (index !== levels.length - 1) return 'must have # in the last level only, as in news/#'
  }
  return undefined
}

/** Returns why `filter` has too many levels, to follow the filter; `undefined` if it has at most `maxFilterLevels`. */
export function filterDepthProblem(filter: string): string | undefined {
  return levelCount(filter) > maxFilterLevels ? `must have at most ${maxFilterLevels} levels` : undefined
}

/** Returns the reason why `topic` is invalid for publishing over HTTP, to follow the topic: `must …`; `undefined` if it is valid. */
export function topicNameProblem(topic: string): string | undefined {
  if (hasWildcard(topic)) return 'must be the name of one topic, without the wildcards + and #' // [MQTT-3.3.2-2]
  if (/^\$SYS(\/|$)/.test(topic)) return 'must not be below $SYS, where brokers speak of themselves'
  if (/^\$share(\/|$)/.test(topic)) return 'must not be below $share, which is for subscriptions' // MQTT 5 §4.8.2
  if (/\p{Cs}/u.test(topic)) return 'must be valid Unicode' // [MQTT-1.5.3-1]
  return topicFilterProblem(topic)
}

const nonCharacter = /[\p{Cs}\p{Noncharacter_Code_Point}]/u

/**
 * Whether `text` holds a character that a topic, filter, client id or user name must not have, or that brokers and clients may close
 * the connection for (MQTT 3.1.1 §1.5.3; mosquitto does): U+0000 [MQTT-1.5.3-2], control characters, single surrogates [MQTT-1.5.3-1]
 * and Unicode's noncharacters. Called for each incoming message: allocates nothing.
 */
export function hasForbiddenCharacter(text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code >= 0x20 && code < 0x7f) continue
    if (code <= 0x9f) return true
    if (code >= 0xd800) return nonCharacter.test(text) || hasControl(text, at)
  }
  return false
}

function hasControl(text: string, from: number): boolean {
  for (let at = from; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) return true
  }
  return false
}
