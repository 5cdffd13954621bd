/**
 * Whether a topic filter matches a topic (MQTT 3.1.1 §4.7). A filter that begins with a wildcard does not match topics that
 * begin with `$` [MQTT-4.7.2-1].
 *
 * @param filter valid
 */
export function matches(filter: string, topic: string): boolean {
  const levels = topic.split('/')
  const wanted = filter.split('/')
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  for (const [index, level] of wanted.entries()) {
    if (level === '#') return true
    if (index >= levels.length || (level !== '+' && level !== levels[index])) return false
  }
  return wanted.length === levels.length
}
