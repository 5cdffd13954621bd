/**
 * MQTT topic names and topic filters: what is valid, and what matches what. Pure; the rules are those of MQTT 3.1.1 §4.7.
 */

/** The longest UTF-8 string of the protocol, in bytes [MQTT-4.7.3-3]. */
const MAX_BYTES = 65_535

const encoder = new TextEncoder()

/**
 * What topic names and topic filters have in common.
 *
 * @param {string} text
 * @param {string} noun how the sentence calls it
 * @returns {string | undefined} a sentence for the person who typed it; undefined when there is nothing to object to
 */
function objectionToString(text, noun) {
  if (text === '') return `The ${noun} is empty: it needs at least one character.`
  if (text.includes('\0')) return `The ${noun} must not contain the character U+0000.`
  const bytes = encoder.encode(text).length
  if (bytes > MAX_BYTES) return `The ${noun} has ${bytes} bytes; MQTT carries at most ${MAX_BYTES}.`
  return undefined
}

/**
 * Why a topic filter cannot be subscribed to.
 *
 * @param {string} filter
 * @returns {string | undefined} a sentence for the person who typed it; undefined when the filter is valid
 */
export function objectionToFilter(filter) {
  const objection = objectionToString(filter, 'topic filter')
  if (objection !== undefined) return objection
  const levels = filter.split('/')
  for (const [index, level] of levels.entries()) {
    // [MQTT-4.7.1-2]
    if (level.includes('#') && level !== '#') return `# must be alone in its level: “${level}” is not.`
    if (level === '#' && index !== levels.length - 1) return '# stands for everything below, so it can only come last.'
    // [MQTT-4.7.1-3]
    if (level.includes('+') && level !== '+') return `+ must be alone in its level: “${level}” is not.`
  }
  return undefined
}

/**
 * Why a topic cannot be published to.
 *
 * @param {string} topic
 * @returns {string | undefined} a sentence for the person who typed it; undefined when the topic is valid
 */
export function objectionToTopic(topic) {
  const objection = objectionToString(topic, 'topic')
  if (objection !== undefined) return objection
  // [MQTT-3.3.2-2]
  if (/[+#]/.test(topic)) return 'A message goes to exactly one topic: + and # are wildcards for subscriptions only.'
  return undefined
}

/**
 * Whether a valid topic filter matches a topic.
 *
 * @param {string} filter
 * @param {string} topic
 * @returns {boolean}
 */
export function matches(filter, topic) {
  // A leading wildcard never matches $SYS and its like [MQTT-4.7.2-1].
  if (topic.startsWith('$') && (filter.startsWith('+') || filter.startsWith('#'))) return false
  const wanted = filter.split('/')
  const levels = topic.split('/')
  for (const [index, level] of wanted.entries()) {
    // "sport/#" also matches "sport" itself (§4.7.1.2), so this comes before the length is looked at.
    if (level === '#') return true
    if (index >= levels.length) return false
    if (level !== '+' && level !== levels[index]) return false
  }
  return wanted.length === levels.length
}

/**
 * A filter that a topic's neighbours match too: its first named level and everything below.
 * `/news/europe/sport` becomes `/news/#`.
 *
 * @param {string} topic
 * @returns {string}
 */
export function neighbourhood(topic) {
  const levels = topic.split('/')
  const named = levels.findIndex(level => level !== '')
  if (named === -1 || named === levels.length - 1) return topic
  return `${levels.slice(0, named + 1).join('/')}/#`
}
