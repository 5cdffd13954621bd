/**
 * Validation and matching of MQTT topic names and topic filters (MQTT 3.1.1 §4.7). Pure.
 */

/** The longest UTF-8 string of the protocol, in bytes [MQTT-4.7.3-3]. */
const MAX_BYTES = 65_535

const encoder = new TextEncoder()

/**
 * Common checks of topic names and topic filters.
 *
 * @param {string} text
 * @param {string} noun its name in the sentence
 * @returns {string | undefined} a sentence for the user; undefined if valid
 */
function objectionToString(text, noun) {
  if (text === '') return `The ${noun} is empty: it needs at least one character.`
  if (text.includes('\0')) return `The ${noun} must not contain the character U+0000.`
  const bytes = encoder.encode(text).length
  if (bytes > MAX_BYTES) return `The ${noun} has ${bytes} bytes; MQTT carries at most ${MAX_BYTES}.`
  return undefined
}

/**
 * The reason why a topic filter is invalid.
 *
 * @param {string} filter
 * @returns {string | undefined} a sentence for the user; undefined when the filter is valid
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
 * The reason why a topic is invalid for publishing.
 *
 * @param {string} topic
 * @returns {string | undefined} a sentence for the user; undefined when the topic is valid
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
  // A leading wildcard never matches topics that begin with $ [MQTT-4.7.2-1].
  if (topic.startsWith('$') && (filter.startsWith('+') || filter.startsWith('#'))) return false
  const wanted = filter.split('/')
  const levels = topic.split('/')
  for (const [index, level] of wanted.entries()) {
    // "sport/#" also matches "sport" itself (§4.7.1.2), so this precedes the check of the length.
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
