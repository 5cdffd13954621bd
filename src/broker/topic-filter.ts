/** Aedes takes no more; it bounds what one filter costs, whatever its length. */
const maxLevels = 100

/** A length of two bytes is before each string in MQTT 3.1.1 §1.5.3. */
const maxBytes = 65_535

/**
 * Whether `text` is a topic filter: not empty [MQTT-4.7.3-1], `#` alone in the last level [MQTT-4.7.1-2], `+` alone in
 * its level [MQTT-4.7.1-3], no U+0000 [MQTT-4.7.3-2]; and of 65,535 bytes and 100 levels at most.
 */
export function isTopicFilter(text: string): boolean {
  if (text === '' || text.includes('\0') || Buffer.byteLength(text) > maxBytes) return false
  const levels = text.split('/', maxLevels + 1)
  if (levels.length > maxLevels) return false
  return levels.every(
    (level, index) =>
      level === '+' || (level === '#' && index === levels.length - 1) || !(level.includes('+') || level.includes('#')),
  )
}
